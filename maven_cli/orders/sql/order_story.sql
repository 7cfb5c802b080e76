-- What is known to have happened to an order, in time order: from the order itself, its lock's ledger entries, the engine,
-- the outbox, dead letters, incidents and refused trades.
SELECT at, what, detail FROM (
    SELECT o.created_at AS at, 0 AS place, 'placed' AS what,
           concat_ws(' ', o.type, o.side, coalesce(trim_scale(o.quantity), trim_scale(o.quote_quantity)),
                     CASE WHEN o.price IS NOT NULL THEN 'at ' || trim_scale(o.price) END,
                     CASE WHEN o.expires_at IS NOT NULL THEN 'until ' || to_char(o.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END) AS detail
      FROM orders o WHERE o.id = %(id)s
    UNION ALL
    SELECT o.triggered_at, 1, 'triggered', 'its stop price was reached' FROM orders o WHERE o.id = %(id)s AND o.triggered_at IS NOT NULL
    UNION ALL
    SELECT e.created_at, 2, 'ledger',
           format('wallet %%s entry %%s: %%s %%s, available %%s, locked %%s → %%s and %%s', e.wallet_id, e.seq, e.kind, e.reference,
                  trim_scale(e.available_delta), trim_scale(e.locked_delta), trim_scale(e.available_after), trim_scale(e.locked_after))
      FROM ledger_entries e
     WHERE e.lock_id = (SELECT lock_id FROM orders WHERE id = %(id)s) OR e.kind = 'unlock' AND e.reference = 'order:' || %(id)s
    UNION ALL
    SELECT r.requested_at, 3, 'engine', 'removal asked for as ' || r.request_key FROM engine_removals r WHERE r.order_id = %(id)s
    UNION ALL
    SELECT r.failed_at, 4, 'engine', format('couldn''t be asked (%%s tries so far): %%s', r.attempts, r.last_error)
      FROM engine_removals r WHERE r.order_id = %(id)s AND r.failed_at IS NOT NULL
    UNION ALL
    SELECT r.not_found_at, 4, 'engine', 'has no such order' FROM engine_removals r WHERE r.order_id = %(id)s AND r.not_found_at IS NOT NULL
    UNION ALL
    SELECT r.answered_at, 4, 'engine', 'removed it with ' || trim_scale(r.engine_remaining) || ' left' || coalesce(', sequence ' || r.engine_seq, '')
      FROM engine_removals r WHERE r.order_id = %(id)s AND r.answered_at IS NOT NULL
    UNION ALL
    SELECT b.created_at, 5, 'event', b.event_id || CASE WHEN b.delivered_at IS NULL THEN ', not delivered yet'
           ELSE ', delivered ' || to_char(b.delivered_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END
      FROM outbox b
     WHERE b.aggregate = 'order:' || %(id)s
        OR b.event_id IN ('BalanceUnlockedEvent:order:' || %(id)s,
                          'BalanceUnlockedEvent:lock:' || (SELECT lock_id FROM orders WHERE id = %(id)s))
    UNION ALL
    SELECT d.first_failed_at, 6, 'dead letter', format('%%s (%%s attempts, %%s): %%s', d.worker, d.attempts, lower(d.state), d.error)
      FROM dead_letters d WHERE d.item = 'order:' || %(id)s
    UNION ALL
    SELECT i.opened_at, 6, 'incident', format('%%s %%s, %%s: %%s', i.id, i.kind, CASE WHEN i.resolved_at IS NULL THEN 'open' ELSE 'resolved' END, i.summary)
      FROM incidents i WHERE i.item = 'order:' || %(id)s
    UNION ALL
    SELECT t.created_at, 6, 'refused', format('trade %%s of %%s at %%s: %%s', t.trade_id, trim_scale(t.quantity), trim_scale(t.price), t.reason)
      FROM rejected_trades t WHERE %(id)s IN (t.buy_order_id, t.sell_order_id)
    UNION ALL
    SELECT o.updated_at, 7, lower(o.status), trim_scale(o.remaining_quantity) || ' left'
      FROM orders o WHERE o.id = %(id)s AND o.status NOT IN ('OPEN', 'PARTIALLY_FILLED')
) story ORDER BY at, place
