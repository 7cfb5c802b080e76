-- Each entry follows on the one before: the next number, and the balance after it is the one before plus its amounts.
SELECT 'entry ' || x.wallet_id || '/' || x.seq || ': ' || nullif(concat_ws('; ',
           CASE WHEN x.wallet_id IS DISTINCT FROM x.wallet THEN 'its wallet doesn''t exist' END,
           CASE WHEN x.seq <> x.before_seq + 1 THEN format('the one before it is %%s', x.before_seq) END,
           CASE WHEN x.available_after <> x.before_available + x.available_delta
                THEN format('%%s available and %%s make %%s, not %%s', trim_scale(x.before_available), trim_scale(x.available_delta),
                            trim_scale(x.before_available + x.available_delta), trim_scale(x.available_after)) END,
           CASE WHEN x.locked_after <> x.before_locked + x.locked_delta
                THEN format('%%s locked and %%s make %%s, not %%s', trim_scale(x.before_locked), trim_scale(x.locked_delta),
                            trim_scale(x.before_locked + x.locked_delta), trim_scale(x.locked_after)) END), '') AS wrong,
       false AS unproven
  FROM (SELECT e.*, w.id AS wallet, coalesce(lag(e.seq) OVER run, 0) AS before_seq,
               coalesce(lag(e.available_after) OVER run, 0) AS before_available, coalesce(lag(e.locked_after) OVER run, 0) AS before_locked,
               coalesce(c.seq, 0) AS proved
          FROM ledger_entries e LEFT JOIN wallets w ON w.id = e.wallet_id
          LEFT JOIN ledger_checkpoints c ON c.wallet_id = e.wallet_id AND NOT %(full)s
         WHERE e.seq >= coalesce(c.seq, 0)
        WINDOW run AS (PARTITION BY e.wallet_id ORDER BY e.seq)) x
 WHERE x.seq > x.proved
