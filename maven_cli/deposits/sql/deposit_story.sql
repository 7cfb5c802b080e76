-- What is known to have happened to a deposit, in time order: its own history, the ledger, the outbox, incidents, dead letters.
WITH this AS (
    SELECT d.*, c.name AS chain, c.family, maven_deposit_reference(c.name, c.family, d.tx_hash, d.kind, d.ordinal) AS reference
      FROM deposits d JOIN chains c ON c.id = d.chain_id WHERE d.id = %(id)s
)
SELECT at, what, detail FROM (
    SELECT t.block_at AS at, 0 AS place, 0 AS turn, 'mined' AS what,
           format('block %%s, %%s', t.block_height, maven_hash_text(t.family, t.block_hash)) AS detail
      FROM this t WHERE t.block_at IS NOT NULL
    UNION ALL
    SELECT h.at, 1, h.id, lower(h.status),
           concat_ws(': ', 'block ' || h.block_height || CASE WHEN h.block_hash IS DISTINCT FROM t.block_hash
                                                             THEN ', ' || maven_hash_text(t.family, h.block_hash) ELSE '' END, h.detail)
      FROM deposit_history h JOIN this t ON t.id = h.deposit_id
    UNION ALL
    SELECT t.verified_at, 0, 0, 'verified',
           format('by %%s against block %%s, %%s of %%s confirmations, digest %%s', t.evidence ->> 'endpoint', t.evidence ->> 'block',
                  t.evidence ->> 'confirmations', t.evidence ->> 'required', t.evidence ->> 'digest')
      FROM this t WHERE t.verified_at IS NOT NULL AND t.evidence IS NOT NULL
    UNION ALL
    SELECT t.missing_since, 1, 0, 'missing', 'not where it was seen' FROM this t WHERE t.missing_since IS NOT NULL
    UNION ALL
    SELECT e.created_at, 2, e.seq, 'ledger',
           format('wallet %%s entry %%s: %%s %%s, available %%s', e.wallet_id, e.seq, e.kind, trim_scale(e.available_delta),
                  trim_scale(e.available_after))
      FROM ledger_entries e JOIN this t ON e.kind = 'deposit' AND e.reference = t.reference
    UNION ALL
    SELECT b.created_at, 3, b.id, 'event', b.event_id || CASE WHEN b.delivered_at IS NULL THEN ', not delivered yet'
           ELSE ', delivered ' || to_char(b.delivered_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END
      FROM outbox b JOIN this t ON b.aggregate = 'deposit:' || t.id OR b.event_id = 'BalanceCreditedEvent:deposit:' || t.reference
    UNION ALL
    SELECT l.first_failed_at, 4, l.id, 'dead letter', format('%%s (%%s attempts, %%s): %%s', l.worker, l.attempts, lower(l.state), l.error)
      FROM dead_letters l WHERE l.item = 'deposit:' || %(id)s
    UNION ALL
    SELECT i.opened_at, 4, i.id, 'incident', format('%%s %%s, %%s: %%s', i.id, i.kind, CASE WHEN i.resolved_at IS NULL THEN 'open' ELSE 'resolved' END, i.summary)
      FROM incidents i WHERE i.item = 'deposit:' || %(id)s
) story ORDER BY at, place, turn
