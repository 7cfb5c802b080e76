-- Each event's row says what the event says, under the one name that its cause gives it, and is as it was written.
SELECT 'event ' || x.event_id || ' (outbox ' || x.id || '): ' || nullif(concat_ws('; ',
           CASE WHEN x.digest IS DISTINCT FROM maven_event_digest(x.id, x.event_id, x.type, x.aggregate, x.event, x.created_at)
                THEN 'its digest doesn''t fit: a field of it was changed' END,
           CASE WHEN (x.event ->> 'id', x.event ->> 'type', x.event ->> 'subject', x.event ->> 'specversion') IS DISTINCT FROM (x.event_id, x.type, x.aggregate, '1.0')
                THEN 'the row and the event in it differ' END,
           CASE WHEN x.event ->> 'time' IS DISTINCT FROM to_char(x.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                THEN 'the row and the event in it are of different times' END,
           CASE WHEN NOT CASE x.type
                    WHEN 'OrderExpiredEvent' THEN x.aggregate ~ '^order:[0-9]+$' AND x.event_id = x.type || ':' || substr(x.aggregate, 7)
                    WHEN 'BalanceUnlockedEvent' THEN x.aggregate ~ '^wallet:[0-9]+$' AND x.event_id ~ '^BalanceUnlockedEvent:(lock|order):[0-9]+$'
                    WHEN 'TradeRejectedEvent' THEN x.aggregate ~ '^trade:[0-9]+:[0-9]+$' AND x.event_id = x.type || ':' || substr(x.aggregate, 7)
                    ELSE starts_with(x.event_id, x.type || ':') END
                THEN 'its id isn''t the one that its cause gives it' END,
           CASE WHEN x.delivered_at < x.created_at OR x.delivered_at > clock_timestamp() THEN 'it was delivered before it was written, or in the future' END), '') AS wrong,
       false AS unproven
  FROM outbox x
