-- Each BalanceUnlockedEvent says what its entry says, and whoever expired without a lock has one.
WITH told AS (
    SELECT x.id, x.event_id, x.created_at, x.event -> 'data' AS data, substr(x.event_id, 22) AS reference
      FROM outbox x WHERE x.type = 'BalanceUnlockedEvent'
), unlocks AS (
    SELECT e.*, w.user_id, a.symbol FROM ledger_entries e LEFT JOIN wallets w ON w.id = e.wallet_id LEFT JOIN assets a ON a.id = w.asset_id
     WHERE e.kind = 'unlock'
)
SELECT coalesce('event ' || x.event_id, 'entry ' || e.wallet_id || '/' || e.seq) || ': ' || nullif(concat_ws('; ',
           CASE WHEN e.seq IS NULL THEN 'there is no such entry' END,
           CASE WHEN x.id IS NULL AND e.reference LIKE 'order:%%' AND e.created_at >= s.pruned_until
                THEN format('%%s was unlocked without a BalanceUnlockedEvent', e.reference) END,
           CASE WHEN x.id IS NOT NULL AND e.seq IS NOT NULL AND
                     (x.data ->> 'walletId', x.data ->> 'userId', x.data ->> 'asset', x.data ->> 'amount', x.data ->> 'available',
                      x.data ->> 'locked', x.data ->> 'sequence', x.data ->> 'lockId', x.data ->> 'reason', x.created_at::text)
                     IS DISTINCT FROM (e.wallet_id::text, e.user_id::text, e.symbol, trim_scale(e.available_delta)::text,
                      trim_scale(e.available_after)::text, trim_scale(e.locked_after)::text, e.seq::text, e.lock_id::text,
                      'ORDER_EXPIRED', e.created_at::text) THEN (
               SELECT 'the ledger says otherwise: ' || string_agg(f.field || ' ' || coalesce(f.said, 'none') || ', not ' || coalesce(f.is_now, 'none'), ', ')
                 FROM (VALUES ('walletId', x.data ->> 'walletId', e.wallet_id::text), ('userId', x.data ->> 'userId', e.user_id::text),
                              ('asset', x.data ->> 'asset', e.symbol), ('amount', x.data ->> 'amount', trim_scale(e.available_delta)::text),
                              ('available', x.data ->> 'available', trim_scale(e.available_after)::text),
                              ('locked', x.data ->> 'locked', trim_scale(e.locked_after)::text), ('sequence', x.data ->> 'sequence', e.seq::text),
                              ('lockId', x.data ->> 'lockId', e.lock_id::text), ('reason', x.data ->> 'reason', 'ORDER_EXPIRED'),
                              ('time', x.created_at::text, e.created_at::text))
                      AS f (field, said, is_now) WHERE f.said IS DISTINCT FROM f.is_now) END,
           CASE WHEN x.created_at >= s.pruned_until AND NOT EXISTS (
                     SELECT FROM outbox t WHERE t.event_id = 'OrderExpiredEvent:' || (x.data -> 'orderIds' ->> -1)
                        AND t.event -> 'data' ->> 'released' = x.data ->> 'amount')
                THEN 'no OrderExpiredEvent says so' END), '') AS wrong,
       false AS unproven
  FROM told x FULL JOIN unlocks e ON e.reference = x.reference
 CROSS JOIN outbox_state s
