-- What each entry refers to exists, and says the same: locks, orders, trades. Adjustments have a check of their own; of
-- other kinds (deposits, withdrawals, the platform's own) no table here knows anything.
WITH entries AS (
    SELECT e.*, CASE WHEN e.kind IN ('trade', 'fee') AND e.reference ~ '^[0-9]{1,18}:[0-9]{1,18}:'
                     THEN split_part(e.reference, ':', 1)::bigint END AS pair_id,
           CASE WHEN e.kind IN ('trade', 'fee') AND e.reference ~ '^[0-9]{1,18}:[0-9]{1,18}:'
                THEN split_part(e.reference, ':', 2)::bigint END AS trade_id,
           CASE WHEN e.kind = 'unlock' AND e.reference ~ '^order:[0-9]{1,18}$' THEN substr(e.reference, 7)::bigint END AS order_id
      FROM ledger_entries e LEFT JOIN ledger_checkpoints c ON c.wallet_id = e.wallet_id AND NOT %(full)s
     WHERE e.seq > coalesce(c.seq, 0) AND e.kind <> 'adjustment'
)
SELECT 'entry ' || e.wallet_id || '/' || e.seq || ' (' || e.kind || ' ' || e.reference || '): ' || CASE
           WHEN e.lock_id IS NOT NULL AND l.id IS NULL THEN format('lock %%s doesn''t exist', e.lock_id)
           WHEN l.wallet_id <> e.wallet_id THEN format('lock %%s is in wallet %%s', l.id, l.wallet_id)
           WHEN e.kind = 'lock' AND (e.reference = l.kind || ':' || l.reference) IS NOT TRUE THEN 'no lock of that name'
           WHEN e.kind = 'opening' AND e.reference <> e.wallet_id || ':' || e.seq THEN 'an opening is named after its wallet and number'
           WHEN e.kind = 'unlock' AND e.order_id IS NULL AND (e.reference = 'lock:' || e.lock_id) IS NOT TRUE THEN 'no lock of that name'
           WHEN e.order_id IS NOT NULL AND o.id IS NULL THEN format('order %%s doesn''t exist', e.order_id)
           WHEN o.status <> 'EXPIRED' OR o.lock_id IS NOT NULL THEN format('order %%s is %%s%%s', o.id, o.status, ' with lock ' || o.lock_id)
           WHEN e.trade_id IS NOT NULL AND t.id IS NULL AND p.trades_retained_from IS NULL THEN format('trade %%s doesn''t exist', e.trade_id)
           END AS wrong,
       CASE WHEN e.trade_id IS NOT NULL THEN t.id IS NULL AND p.trades_retained_from IS NOT NULL
            ELSE e.kind NOT IN ('lock', 'unlock', 'opening') END AS unproven
  FROM entries e LEFT JOIN locks l ON l.id = e.lock_id LEFT JOIN orders o ON o.id = e.order_id
  LEFT JOIN trading_pairs p ON p.id = e.pair_id LEFT JOIN trades t ON t.trading_pair_id = e.pair_id AND t.id = e.trade_id
