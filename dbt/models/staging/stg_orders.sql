{{ config(alias='orders') }}

with source as (

    select * from {{ pinned('raw', 'orders') }}

),

renamed as (

    select
        order_id,
        customer_id,
        order_date,
        units,
        total_cents,
        recorded_at,
        known_at,
        batch_id,
        loaded_at,
        deleted_at
    from source

)

select * from renamed
