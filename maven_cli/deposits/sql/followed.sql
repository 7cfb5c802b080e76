-- Chains with deposits on their way, by a partial index; and with such that wait to mature.
SELECT id FROM chains c
 WHERE EXISTS (SELECT FROM deposits d WHERE d.chain_id = c.id AND d.status IN ('PENDING', 'CONFIRMING'))
    OR EXISTS (SELECT FROM deposits d WHERE d.chain_id = c.id AND d.status = 'HELD' AND d.reason = 'immature')
