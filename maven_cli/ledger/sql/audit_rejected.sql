-- Each trade that the fence refused has its event, and each such event its trade; they say the same.
SELECT 'trade ' || coalesce(x.aggregate, 'trade:' || r.trading_pair_id || ':' || r.trade_id) || ': ' || nullif(concat_ws('; ',
           CASE WHEN r.trade_id IS NULL THEN 'it isn''t among the rejected trades' END,
           CASE WHEN x.id IS NULL AND r.created_at >= s.pruned_until THEN 'it was rejected without a TradeRejectedEvent' END,
           CASE WHEN x.id IS NOT NULL AND r.trade_id IS NOT NULL THEN (
               SELECT 'its event says otherwise: ' || string_agg(f.field || ' ' || coalesce(f.said, 'none') || ', not ' || coalesce(f.is_now, 'none'), ', ')
                 FROM (VALUES ('tradeId', x.event -> 'data' ->> 'tradeId', r.trade_id::text), ('pair', x.event -> 'data' ->> 'pair', p.symbol),
                              ('price', x.event -> 'data' ->> 'price', trim_scale(r.price)::text),
                              ('quantity', x.event -> 'data' ->> 'quantity', trim_scale(r.quantity)::text),
                              ('executedAt', x.event -> 'data' ->> 'executedAt', to_char(r.executed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
                              ('buyOrderId', x.event -> 'data' ->> 'buyOrderId', r.buy_order_id::text),
                              ('sellOrderId', x.event -> 'data' ->> 'sellOrderId', r.sell_order_id::text),
                              ('reason', x.event -> 'data' ->> 'reason', r.reason), ('time', x.created_at::text, r.created_at::text))
                      AS f (field, said, is_now) WHERE f.said IS DISTINCT FROM f.is_now) END), '') AS wrong,
       x.id IS NULL AND r.created_at < s.pruned_until AS unproven
  FROM rejected_trades r FULL JOIN (SELECT * FROM outbox WHERE type = 'TradeRejectedEvent') x
    ON x.aggregate = 'trade:' || r.trading_pair_id || ':' || r.trade_id
  LEFT JOIN trading_pairs p ON p.id = r.trading_pair_id
 CROSS JOIN outbox_state s
