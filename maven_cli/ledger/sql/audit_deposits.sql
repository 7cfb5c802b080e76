-- Each credited deposit has its entry, and each entry of a chain's deposit its deposit; they say the same, and so do both events.
-- A deposit keeps its reference when its transaction is mined again with its transfers in another order: the last part may differ.
WITH credits AS (
    SELECT e.*, w.user_id, w.asset_id
      FROM ledger_entries e JOIN chains c ON starts_with(e.reference, c.name || ':') LEFT JOIN wallets w ON w.id = e.wallet_id
     WHERE e.kind = 'deposit'
), credited AS (
    SELECT d.*, t.asset_id, s.symbol, c.name || ':' || maven_hash_text(c.family, d.tx_hash) || ':' || d.kind || ':' AS reference
      FROM deposits d JOIN tokens t ON t.id = d.token_id JOIN assets s ON s.id = t.asset_id JOIN chains c ON c.id = d.chain_id
     WHERE d.status = 'CREDITED' OR d.credited_at IS NOT NULL
)
SELECT coalesce('deposit ' || d.id, 'entry ' || e.wallet_id || '/' || e.seq || ' (' || e.reference || ')') || ': ' || nullif(concat_ws('; ',
           CASE WHEN d.id IS NULL THEN 'no deposit was credited by it' END,
           CASE WHEN e.seq IS NULL THEN format('its entry %%s/%%s doesn''t exist', d.wallet_id, d.entry_seq) END,
           CASE WHEN d.status <> 'CREDITED' THEN format('it was credited, but is %%s', d.status) END,
           CASE WHEN NOT starts_with(e.reference, d.reference) THEN format('its entry is of %%s', e.reference) END,
           CASE WHEN e.available_delta <> d.amount OR e.locked_delta <> 0
                THEN format('it is %%s, its entry says %%s', trim_scale(d.amount), trim_scale(e.available_delta)) END,
           CASE WHEN e.user_id <> d.user_id OR e.asset_id <> d.asset_id THEN 'its entry is in another wallet than its user''s' END,
           CASE WHEN d.credited_at <> e.created_at THEN format('it was credited at %%s, its entry is of %%s', d.credited_at, e.created_at) END,
           CASE WHEN d.credited_at >= p.pruned_until AND (x.data ->> 'depositId', x.data ->> 'amount', x.data ->> 'userId', x.data ->> 'asset')
                     IS DISTINCT FROM (d.id::text, trim_scale(d.amount)::text, d.user_id::text, d.symbol)
                THEN 'no DepositCreditedEvent says so' END,
           CASE WHEN d.credited_at >= p.pruned_until AND (b.data ->> 'depositId', b.data ->> 'amount', b.data ->> 'sequence', b.data ->> 'walletId')
                     IS DISTINCT FROM (d.id::text, trim_scale(d.amount)::text, d.entry_seq::text, d.wallet_id::text)
                THEN 'no BalanceCreditedEvent says so' END), '') AS wrong,
       false AS unproven
  FROM credited d FULL JOIN credits e ON e.wallet_id = d.wallet_id AND e.seq = d.entry_seq
  LEFT JOIN (SELECT o.event_id, o.event -> 'data' AS data FROM outbox o WHERE o.type = 'DepositCreditedEvent') x
    ON x.event_id = 'DepositCreditedEvent:' || e.reference
  LEFT JOIN (SELECT o.event_id, o.event -> 'data' AS data FROM outbox o WHERE o.type = 'BalanceCreditedEvent') b
    ON b.event_id = 'BalanceCreditedEvent:deposit:' || e.reference
 CROSS JOIN outbox_state p
