-- Each expired order has its OrderExpiredEvent, and each such event its order; they say the same, and so does the ledger.
WITH told AS (
    SELECT x.id, x.event_id, x.aggregate, x.created_at, x.event -> 'data' AS data FROM outbox x WHERE x.type = 'OrderExpiredEvent'
), unlocked AS (
    SELECT x.event_id, x.created_at, x.event -> 'data' AS data FROM outbox x WHERE x.type = 'BalanceUnlockedEvent'
), expired AS (
    SELECT o.*, 'order:' || o.id AS aggregate, CASE WHEN o.lock_id IS NULL THEN 'order:' || o.id ELSE 'lock:' || o.lock_id END AS unlock
      FROM orders o WHERE o.status = 'EXPIRED'
)
SELECT coalesce('order ' || o.id, 'event ' || x.event_id) || ': ' || nullif(concat_ws('; ',
           CASE WHEN o.id IS NULL THEN 'there is no such expired order' END,
           CASE WHEN x.id IS NULL AND (coalesce(o.expires_at, o.updated_at) >= s.pruned_until OR u.created_at >= s.pruned_until)
                THEN 'it has expired without an OrderExpiredEvent' END,
           CASE WHEN o.id IS NOT NULL AND x.id IS NOT NULL AND
                     (x.data ->> 'orderId', x.data ->> 'userId', x.data ->> 'pair', x.data ->> 'side', x.data ->> 'type',
                      x.data ->> 'price', x.data ->> 'stopPrice', x.data ->> 'quantity', x.data ->> 'filledQuantity',
                      x.data ->> 'quoteQuantity', x.data ->> 'filledQuoteQuantity', x.data ->> 'remainingQuantity',
                      x.data ->> 'feeAsset', x.data ->> 'feeReserve', x.data ->> 'feePaid', x.data ->> 'lockId', x.data ->> 'expiresAt',
                      x.data ->> 'released')
                     IS DISTINCT FROM (o.id::text, o.user_id::text, p.symbol, o.side, o.type,
                      trim_scale(o.price)::text, trim_scale(o.stop_price)::text, trim_scale(o.quantity)::text, trim_scale(o.filled_quantity)::text,
                      trim_scale(o.quote_quantity)::text, trim_scale(o.filled_quote_quantity)::text, trim_scale(o.remaining_quantity)::text,
                      fee.symbol, trim_scale(o.fee_reserve)::text, trim_scale(o.fee_paid)::text, o.lock_id::text,
                      to_char(o.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), CASE WHEN b.event_id IS NULL AND x.created_at < s.pruned_until THEN x.data ->> 'released' WHEN b.data -> 'orderIds' ->> -1 = o.id::text AND u.created_at = x.created_at THEN trim_scale(u.available_delta)::text ELSE '0' END) THEN (
               SELECT 'its event says otherwise: ' || string_agg(f.field || ' ' || coalesce(f.said, 'none') || ', not ' || coalesce(f.is_now, 'none'), ', ')
                 FROM (VALUES ('orderId', x.data ->> 'orderId', o.id::text), ('userId', x.data ->> 'userId', o.user_id::text),
                              ('pair', x.data ->> 'pair', p.symbol), ('side', x.data ->> 'side', o.side), ('type', x.data ->> 'type', o.type),
                              ('price', x.data ->> 'price', trim_scale(o.price)::text),
                              ('stopPrice', x.data ->> 'stopPrice', trim_scale(o.stop_price)::text),
                              ('quantity', x.data ->> 'quantity', trim_scale(o.quantity)::text),
                              ('filledQuantity', x.data ->> 'filledQuantity', trim_scale(o.filled_quantity)::text),
                              ('quoteQuantity', x.data ->> 'quoteQuantity', trim_scale(o.quote_quantity)::text),
                              ('filledQuoteQuantity', x.data ->> 'filledQuoteQuantity', trim_scale(o.filled_quote_quantity)::text),
                              ('remainingQuantity', x.data ->> 'remainingQuantity', trim_scale(o.remaining_quantity)::text),
                              ('feeAsset', x.data ->> 'feeAsset', fee.symbol),
                              ('feeReserve', x.data ->> 'feeReserve', trim_scale(o.fee_reserve)::text),
                              ('feePaid', x.data ->> 'feePaid', trim_scale(o.fee_paid)::text),
                              ('lockId', x.data ->> 'lockId', o.lock_id::text),
                              ('expiresAt', x.data ->> 'expiresAt', to_char(o.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
                              ('released', x.data ->> 'released',
                               -- Of the two events the other one may have been pruned already.
                               CASE WHEN b.event_id IS NULL AND x.created_at < s.pruned_until THEN x.data ->> 'released'
                                    WHEN b.data -> 'orderIds' ->> -1 = o.id::text AND u.created_at = x.created_at
                                    THEN trim_scale(u.available_delta)::text ELSE '0' END))
                      AS f (field, said, is_now) WHERE f.said IS DISTINCT FROM f.is_now) END,
           CASE WHEN u.created_at = x.created_at AND x.created_at >= s.pruned_until AND b.event_id IS NULL THEN 'its balance was unlocked without a BalanceUnlockedEvent' END), '') AS wrong,
       x.id IS NULL AND NOT (coalesce(o.expires_at, o.updated_at) >= s.pruned_until OR coalesce(u.created_at >= s.pruned_until, false)) AS unproven
  FROM expired o FULL JOIN told x ON x.aggregate = o.aggregate
  LEFT JOIN ledger_entries u ON u.kind = 'unlock' AND u.reference = o.unlock
  LEFT JOIN unlocked b ON b.event_id = 'BalanceUnlockedEvent:' || o.unlock AND b.created_at = x.created_at
  LEFT JOIN trading_pairs p ON p.id = o.trading_pair_id LEFT JOIN assets fee ON fee.id = o.fee_asset_id
 CROSS JOIN outbox_state s
