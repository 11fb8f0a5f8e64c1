{{ config(alias='customers') }}

with source as (

    select * from {{ pinned('raw', 'customers') }}

),

renamed as (

    select
        customer_id,
        signed_up_at,
        recorded_at,
        known_at,
        batch_id,
        loaded_at,
        deleted_at
    from source

)

select * from renamed
