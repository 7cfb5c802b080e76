-- No order that has expired or was canceled was filled by more than it says: a trade that came after its end would be.
-- Without --full only trades of the last 24 hours are added up, which can't prove less, only miss some.
WITH filled AS (
    SELECT order_id, sum(quantity) AS quantity
      FROM (SELECT buy_order_id AS order_id, quantity FROM trades WHERE buy_order_id IS NOT NULL AND (%(full)s OR executed_at > now() - interval '24 hours')
            UNION ALL
            SELECT sell_order_id, quantity FROM trades WHERE sell_order_id IS NOT NULL AND (%(full)s OR executed_at > now() - interval '24 hours')) t
     GROUP BY 1
)
SELECT CASE WHEN f.quantity > o.filled_quantity
            THEN format('order %%s: it is %%s and says %%s were filled, its trades say %%s', o.id, o.status, trim_scale(o.filled_quantity), trim_scale(f.quantity))
       END AS wrong,
       false AS unproven
  FROM filled f JOIN orders o ON o.id = f.order_id WHERE o.status IN ('EXPIRED', 'CANCELED') AND o.quantity IS NOT NULL
