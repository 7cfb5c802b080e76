-- Each wallet is what its newest entry says; its entries above the checkpoint are all there and add up to it.
WITH summed AS (
    SELECT e.wallet_id, count(*) AS entries, max(e.seq) AS last, sum(e.available_delta) AS available, sum(e.locked_delta) AS locked
      FROM ledger_entries e LEFT JOIN ledger_checkpoints c ON c.wallet_id = e.wallet_id AND NOT %(full)s
     WHERE e.seq > coalesce(c.seq, 0) GROUP BY 1
), newest AS (
    SELECT w.*, s.entries, coalesce(s.last, c.seq, 0) AS last, coalesce(c.seq, 0) AS proved,
           coalesce(c.available, 0) + coalesce(s.available, 0) AS available_sum,
           coalesce(c.locked, 0) + coalesce(s.locked, 0) AS locked_sum
      FROM wallets w LEFT JOIN ledger_checkpoints c ON c.wallet_id = w.id AND NOT %(full)s LEFT JOIN summed s ON s.wallet_id = w.id
)
SELECT 'wallet ' || n.id || ': ' || nullif(concat_ws('; ',
           CASE WHEN n.seq <> n.last THEN format('it says entry %%s is its newest, the ledger says %%s', n.seq, n.last) END,
           CASE WHEN coalesce(n.entries, 0) <> n.last - n.proved
                THEN format('%%s of the entries %%s to %%s are missing', n.last - n.proved - coalesce(n.entries, 0), n.proved + 1, n.last) END,
           CASE WHEN (n.available, n.locked) <> (coalesce(e.available_after, 0), coalesce(e.locked_after, 0)) AND NOT m.observed
                THEN format('it holds %%s and %%s locked, its newest entry says %%s and %%s', trim_scale(n.available), trim_scale(n.locked),
                            trim_scale(coalesce(e.available_after, 0)), trim_scale(coalesce(e.locked_after, 0))) END,
           CASE WHEN (n.available_sum, n.locked_sum) <> (coalesce(e.available_after, 0), coalesce(e.locked_after, 0))
                THEN format('its entries add up to %%s and %%s locked, the newest says %%s and %%s', trim_scale(n.available_sum),
                            trim_scale(n.locked_sum), trim_scale(coalesce(e.available_after, 0)), trim_scale(coalesce(e.locked_after, 0))) END,
           CASE WHEN (n.available >= 0 AND n.locked >= 0 AND n.available <> 'NaN' AND n.locked <> 'NaN') IS NOT TRUE
                THEN 'a balance is negative or no number' END), '') AS wrong,
       m.observed AND (n.available, n.locked) <> (coalesce(e.available_after, 0), coalesce(e.locked_after, 0)) AS unproven
  FROM newest n LEFT JOIN ledger_entries e ON e.wallet_id = n.id AND e.seq = n.last
 CROSS JOIN (SELECT mode = 'observed' AS observed FROM ledger_state) m
