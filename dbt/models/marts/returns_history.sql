with landed as (

    select * from {{ ref('stg_returns') }}

),

ended as (

    select
        *,
        lead(known_at) over (
            partition by order_id order by known_at, loaded_at, batch_id
        ) as known_until
    from landed

)

-- Whose a return is, its order says, and that can change: so each version of a return counts beside each version of
-- its order, for as long as both do. `least` takes no notice of a version that has no end.
select
    ended.order_id,
    orders.customer_id,
    cast(ended.returned_at as date) as returned_on,
    ended.cents,
    greatest(ended.known_at, orders.known_at) as known_at,
    least(ended.known_until, orders.known_until) as known_until,
    ended.batch_id,
    orders.batch_id as order_batch_id
from ended
inner join {{ ref('orders_history') }} as orders
    on
        ended.order_id = orders.order_id
        and coalesce(ended.known_at < orders.known_until, true)
        and coalesce(ended.known_until > orders.known_at, true)
where ended.deleted_at is null
