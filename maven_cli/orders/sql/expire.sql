SELECT e.order_id, e.released, e.rule, e.lock_id, e.asset,
       e.lock_id IS NOT NULL AND e.released <> e.rule
       AND NOT EXISTS (SELECT FROM orders o WHERE o.lock_id = e.lock_id AND o.id <> e.order_id) AS differs
  FROM maven_expire_orders(%(as_of)s, %(ids)s, %(remaining)s, %(seen)s, %(formula)s) e
