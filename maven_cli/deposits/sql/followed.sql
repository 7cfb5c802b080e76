-- Chains with deposits on their way, by a partial index; and with such that are held for what may be over by now.
SELECT id FROM chains c
 WHERE EXISTS (SELECT FROM deposits d WHERE d.chain_id = c.id AND d.status IN ('PENDING', 'CONFIRMING'))
    OR EXISTS (SELECT FROM deposits d JOIN tokens t ON t.id = d.token_id
                WHERE d.chain_id = c.id AND d.status = 'HELD' AND (d.reason = 'immature' OR d.reason LIKE 'token %' AND t.state = 'ACTIVE'))
