{{ config(alias='returns') }}

with source as (

    select * from {{ pinned('raw', 'returns') }}

),

renamed as (

    select
        order_id,
        returned_at,
        cents,
        recorded_at,
        known_at,
        batch_id,
        loaded_at,
        deleted_at
    from source

)

select * from renamed
