-- The one definition of what a customer did in the last hour, day and week: for the stream and for the batch alike.
--
-- {asked}   customer_id, known_at, each pair once: whose activity, as of when; known_at is the event_time of the row that
--           comes of it
-- {events}  raw.order_events: event_time, when an order was placed; known_at, when its micro-batch was landed. Of the
--           customers asked about, all events are there that are known by the last known_at asked about and were placed
--           within 7 days of the first (activity.py tells the scan)
--
-- One row for each pair that is asked, without orders too. A window of a length ends at known_at: an event belongs to it
-- that was placed later than known_at less that length, and is known by then. One that comes late counts from its own
-- known_at on. Money is in cents. The longest window is `WINDOW` of activity.py, and the view's ttl.
WITH counted AS (
    SELECT
        a.customer_id,
        a.known_at,
        e.event_time,
        e.total_cents,
        e.event_time > a.known_at - INTERVAL '1' HOUR AS in_1h,
        e.event_time > a.known_at - INTERVAL '24' HOUR AS in_24h
    FROM {asked} AS a
    INNER JOIN {events} AS e
        ON e.customer_id = a.customer_id
        AND e.known_at <= a.known_at
        AND e.event_time > a.known_at - INTERVAL '7' DAY
    UNION ALL -- so that a pair without an event has a row, by the same one aggregation
    SELECT customer_id, known_at, NULL, NULL, NULL, NULL FROM {asked}
)

SELECT
    customer_id,
    known_at AS event_time,
    CAST(count_if(in_1h) AS INT) AS orders_1h,
    CAST(count_if(in_24h) AS INT) AS orders_24h,
    CAST(count(event_time) AS INT) AS orders_7d,
    CAST(coalesce(sum(total_cents) FILTER (WHERE in_1h), 0) AS BIGINT) AS spend_cents_1h,
    CAST(coalesce(sum(total_cents) FILTER (WHERE in_24h), 0) AS BIGINT) AS spend_cents_24h,
    CAST(coalesce(sum(total_cents), 0) AS BIGINT) AS spend_cents_7d,
    CAST(unix_seconds(max(event_time)) AS BIGINT) AS last_order_second
FROM counted
GROUP BY customer_id, known_at
