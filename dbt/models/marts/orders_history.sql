{{
    config(
        materialized='incremental',
        incremental_strategy='merge',
        unique_key=['order_id', 'batch_id'],
        on_schema_change='append_new_columns',
        incremental_predicates=[env_var('PLUMB_MERGE_ONLY', 'true')]
    )
}}

with landed as (

    select
        staged.*,
        true as is_landed
    from {{ ref('stg_orders') }} as staged

    {% if on_top_of_base() %}
        left anti join {{ landed_before('raw', 'orders') }} as base on staged.batch_id = base.batch_id
    {% endif %}

),

versions as (

    select * from landed

    {% if on_top_of_base() %}
        -- What a landed version ends: the one of the same order that counted until now.
        union all
        select
            standing.order_id,
            standing.customer_id,
            standing.order_date,
            standing.units,
            standing.total_cents,
            standing.recorded_at,
            standing.known_at,
            standing.batch_id,
            standing.loaded_at,
            cast(null as timestamp) as deleted_at,
            false as is_landed
        from {{ built_before() }} as standing
        left semi join landed on standing.order_id = landed.order_id
        where
            standing.known_until is null
            and {{ env_var('PLUMB_MERGE_ONLY', 'true') | replace('DBT_INTERNAL_DEST', 'standing') }}
    {% endif %}

),

ended as (

    select
        *,
        lead(known_at) over (
            partition by order_id order by is_landed, known_at, loaded_at, batch_id
        ) as known_until
    from versions

)

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
    known_until
from ended
where deleted_at is null
