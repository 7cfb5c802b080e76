-- Each checkpoint is the balance after an entry that is there.
SELECT 'checkpoint of wallet ' || c.wallet_id || ': ' || CASE
       WHEN e.seq IS NULL THEN format('there is no entry %%s', c.seq)
       WHEN (c.available, c.locked) <> (e.available_after, e.locked_after) THEN
           format('it says %%s and %%s locked, entry %%s says %%s and %%s', trim_scale(c.available), trim_scale(c.locked), c.seq,
                  trim_scale(e.available_after), trim_scale(e.locked_after)) END AS wrong,
       false AS unproven
  FROM ledger_checkpoints c LEFT JOIN ledger_entries e ON e.wallet_id = c.wallet_id AND e.seq = c.seq
