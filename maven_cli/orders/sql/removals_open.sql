-- What is still open between the engine and us, beyond orders that are due:
--
--   owed      the order has ended, and the engine hasn't said that it is out of its book; its next attempt is due
--   done      the order has ended, and the engine has answered
--   revived   the engine has taken it out of its book, but somebody gave the order a later end
--   doubtful  somebody gave it a later end, and whether the engine has taken it out isn't known: the answer was lost, or the
--             engine was never reached
--
-- An intent that is older than the order's end was for an earlier one (amended): what the engine had left then needn't be what
-- the order ended with. Attempts at what is owed come later and later, as those of dead letters do.
SELECT r.requested_at, r.order_id, p.symbol, o.side, r.request_key, o.status, o.remaining_quantity, r.engine_remaining,
       CASE WHEN r.failed_at >= o.updated_at THEN r.attempts ELSE 0 END, s.amended, s.state
  FROM engine_removals r JOIN orders o ON o.id = r.order_id LEFT JOIN trading_pairs p ON p.id = o.trading_pair_id
 CROSS JOIN LATERAL (
       SELECT r.requested_at < coalesce(o.expires_at, 'infinity') AS amended,
              CASE
              WHEN o.status IN ('OPEN', 'PARTIALLY_FILLED') THEN CASE
                  WHEN o.expires_at <= %(as_of)s OR o.expires_at <= r.requested_at THEN NULL
                  WHEN r.answered_at IS NOT NULL THEN 'revived'
                  -- An untriggered stop is in no book.
                  WHEN r.not_found_at IS NOT NULL AND o.type IN ('stop_limit', 'stop_market') AND o.triggered_at IS NULL THEN NULL
                  ELSE 'doubtful' END
              WHEN r.answered_at IS NOT NULL OR r.not_found_at IS NOT NULL THEN 'done'
              -- Ended in this pass: asked about a moment ago.
              WHEN o.updated_at >= %(as_of)s THEN NULL
              WHEN r.failed_at >= o.updated_at AND r.failed_at > now() - make_interval(secs => least(
                   %(base)s * power(2, least(greatest(r.attempts - 1, 0), 60)), %(longest)s)) THEN NULL
              ELSE 'owed' END AS state) AS s
 WHERE r.settled_at IS NULL
   AND (r.requested_at, r.order_id) > (%(after_at)s, %(after_id)s)
   AND s.state IS NOT NULL
 ORDER BY r.requested_at, r.order_id
 LIMIT %(limit)s
