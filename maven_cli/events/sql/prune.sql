-- Deletes some of the events delivered before an instant, and draws the line behind the newest of them: whatever was
-- created at or after `pruned_until` is still there.
WITH old AS (
    SELECT id FROM outbox WHERE delivered_at < %(before)s ORDER BY delivered_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM outbox USING old WHERE outbox.id = old.id RETURNING outbox.created_at
), line AS (
    INSERT INTO outbox_state (id, pruned_until)
    SELECT true, max(created_at) + interval '1 microsecond' FROM gone HAVING count(*) > 0
    ON CONFLICT (id) DO UPDATE SET pruned_until = excluded.pruned_until
     WHERE outbox_state.pruned_until < excluded.pruned_until
)
SELECT count(*) FROM gone
