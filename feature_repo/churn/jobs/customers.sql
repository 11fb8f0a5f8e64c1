-- The one definition of every stored customer feature.
--
-- {snapshots}  the days to compute: snapshot_date; event_time, the day's end, when it was knowable; and what is the
--              same in all rows: base_time (event_time of {base}: what was known before is in its totals), created_at
--              and release_id of the run
-- {orders}     analytics.orders_history at the run's version. Read from it: what was known since {base}, what is dated
--              in the longest window, and every version of customers whose totals are computed anew
-- {customers}  analytics.customers_history at the run's version
-- {returns}    analytics.returns_history at the run's version, each with the customer of its order; read as {orders} is
-- {base}       the snapshot that totals are carried on from. Empty when computing from the first order on; without
--              customers who had an order corrected or deleted since: theirs are computed from all that counts
--
-- Money is in cents, days are counted from 1970-01-01. A window of n days ends with the snapshot day and includes it;
-- no order is dated behind it, or the gate on analytics.orders would have stopped the run. A version of an order counts
-- from known_at on, until known_until. The longest date_sub() of snapshot_date is how far back the job reads.
WITH counted AS ( -- the versions that count on each day; is_new: not in the totals of {base}
    SELECT
        s.snapshot_date,
        o.customer_id,
        o.order_date,
        o.units,
        o.total_cents,
        b.customer_id IS NULL OR o.known_at >= s.base_time AS is_new
    FROM {snapshots} AS s
    INNER JOIN {orders} AS o
        ON o.known_at < s.event_time AND coalesce(o.known_until >= s.event_time, true)
    LEFT JOIN {base} AS b ON b.customer_id = o.customer_id
),

seen AS ( -- what each customer ordered: *_new since {base}, the windows by order date
    SELECT
        snapshot_date,
        customer_id,
        count_if(is_new) AS orders_new,
        coalesce(sum(total_cents) FILTER (WHERE is_new), 0) AS spend_cents_new,
        coalesce(sum(units) FILTER (WHERE is_new), 0) AS units_new,
        min(order_date) FILTER (WHERE is_new) AS first_new,
        max(order_date) FILTER (WHERE is_new) AS last_new,
        count_if(order_date > date_sub(snapshot_date, 7)) AS orders_7d,
        count_if(order_date > date_sub(snapshot_date, 30)) AS orders_30d,
        count_if(order_date > date_sub(snapshot_date, 90)) AS orders_90d,
        coalesce(sum(total_cents) FILTER (WHERE order_date > date_sub(snapshot_date, 7)), 0) AS spend_cents_7d,
        coalesce(sum(total_cents) FILTER (WHERE order_date > date_sub(snapshot_date, 30)), 0) AS spend_cents_30d,
        coalesce(sum(total_cents) FILTER (WHERE order_date > date_sub(snapshot_date, 90)), 0) AS spend_cents_90d
    FROM counted
    GROUP BY snapshot_date, customer_id
),

returned AS ( -- what came back from each customer, by the day on which it did
    SELECT
        s.snapshot_date,
        r.customer_id,
        coalesce(sum(r.cents) FILTER (WHERE r.returned_on > date_sub(s.snapshot_date, 90)), 0) AS returned_cents_90d
    FROM {snapshots} AS s
    INNER JOIN {returns} AS r
        ON r.known_at < s.event_time AND coalesce(r.known_until >= s.event_time, true)
    GROUP BY s.snapshot_date, r.customer_id
),

totals AS (
    SELECT
        s.snapshot_date,
        s.event_time,
        s.created_at,
        s.release_id,
        c.customer_id,
        c.signed_up_on,
        coalesce(b.orders_total, 0) + coalesce(n.orders_new, 0) AS orders_total,
        coalesce(b.spend_cents_total, 0) + coalesce(n.spend_cents_new, 0) AS spend_cents_total,
        coalesce(b.units_total, 0) + coalesce(n.units_new, 0) AS units_total,
        least(b.first_order_day, unix_date(n.first_new)) AS first_order_day,
        greatest(b.last_order_day, unix_date(n.last_new)) AS last_order_day,
        coalesce(n.orders_7d, 0) AS orders_7d,
        coalesce(n.orders_30d, 0) AS orders_30d,
        coalesce(n.orders_90d, 0) AS orders_90d,
        coalesce(n.spend_cents_7d, 0) AS spend_cents_7d,
        coalesce(n.spend_cents_30d, 0) AS spend_cents_30d,
        coalesce(n.spend_cents_90d, 0) AS spend_cents_90d,
        coalesce(k.returned_cents_90d, 0) AS returned_cents_90d
    FROM {snapshots} AS s
    INNER JOIN {customers} AS c
        ON c.known_at < s.event_time AND coalesce(c.known_until >= s.event_time, true)
    LEFT JOIN seen AS n ON n.snapshot_date = s.snapshot_date AND n.customer_id = c.customer_id
    LEFT JOIN {base} AS b ON b.customer_id = c.customer_id
    LEFT JOIN returned AS k ON k.snapshot_date = s.snapshot_date AND k.customer_id = c.customer_id
)

SELECT
    customer_id,
    snapshot_date,
    event_time,
    created_at,
    release_id,
    CAST(floor(months_between(snapshot_date, signed_up_on)) AS INT) AS tenure_months,
    CAST(spend_cents_total / nullif(orders_total, 0) AS FLOAT) AS avg_ticket,
    CAST(spend_cents_30d / nullif(orders_30d, 0) AS FLOAT) AS avg_ticket_30d,
    CAST(orders_7d AS INT) AS orders_7d,
    CAST(orders_30d AS INT) AS orders_30d,
    CAST(orders_90d AS INT) AS orders_90d,
    CAST(spend_cents_7d AS BIGINT) AS spend_cents_7d,
    CAST(spend_cents_30d AS BIGINT) AS spend_cents_30d,
    CAST(spend_cents_90d AS BIGINT) AS spend_cents_90d,
    CAST(orders_total AS INT) AS orders_total,
    CAST(spend_cents_total AS BIGINT) AS spend_cents_total,
    CAST(units_total AS INT) AS units_total,
    CAST((last_order_day - first_order_day) / nullif(greatest(orders_total - 1, 0), 0) AS FLOAT) AS days_between_orders,
    CAST(returned_cents_90d AS BIGINT) AS returned_cents_90d,
    CAST(first_order_day AS INT) AS first_order_day,
    CAST(last_order_day AS INT) AS last_order_day
FROM totals
