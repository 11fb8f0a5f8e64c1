{{
    config(
        materialized='incremental',
        incremental_strategy='merge',
        unique_key='order_id',
        on_schema_change='append_new_columns',
        incremental_predicates=[env_var('PLUMB_MERGE_ONLY', 'true')]
    )
}}

with landed as (

    select staged.*
    from {{ ref('stg_orders') }} as staged

    {% if on_top_of_base() %}
        -- By batch and not by a time: a clock can stand still or go back, and the base release is known by version.
        left anti join {{ landed_before('raw', 'orders') }} as base on staged.batch_id = base.batch_id
    {% endif %}

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
    order_id,
    customer_id,
    order_date,
    units,
    total_cents,
    recorded_at,
    known_at,
    batch_id,
    loaded_at
from numbered
where landing = 1 and deleted_at is null
