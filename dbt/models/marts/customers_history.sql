with landed as (

    select * from {{ ref('stg_customers') }}

),

ended as (

    select
        *,
        lead(known_at) over (
            partition by customer_id order by known_at, loaded_at, batch_id
        ) as known_until
    from landed

)

select
    customer_id,
    cast(signed_up_at as date) as signed_up_on,
    cast(date_trunc('month', signed_up_at) as date) as cohort_month,
    known_at,
    known_until
from ended
where deleted_at is null
