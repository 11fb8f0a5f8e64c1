with landed as (

    select * from {{ ref('stg_customers') }}

),

numbered as (

    select
        *,
        row_number() over (
            partition by customer_id order by {{ newest_first() }}
        ) as landing
    from landed

)

select
    customer_id,
    cast(signed_up_at as date) as signed_up_on,
    cast(date_trunc('month', signed_up_at) as date) as cohort_month,
    known_at
from numbered
where landing = 1 and deleted_at is null
