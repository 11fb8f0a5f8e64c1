with landed as (

    select * from {{ ref('stg_returns') }}

),

numbered as (

    select
        *,
        row_number() over (
            partition by order_id order by {{ newest_first() }}
        ) as landing
    from landed

)

select
    numbered.order_id,
    orders.customer_id,
    cast(numbered.returned_at as date) as returned_on,
    numbered.cents,
    orders.total_cents as paid_cents,
    numbered.recorded_at,
    numbered.known_at
from numbered
left join {{ ref('orders') }} as orders on numbered.order_id = orders.order_id
where numbered.landing = 1 and numbered.deleted_at is null
