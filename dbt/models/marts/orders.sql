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

    select * from {{ ref('stg_orders') }}

    {% if on_top_of_base() %}
        -- By batch and not by a time: a clock can stand still or go back, and the base release is known by version.
        where batch_id not in (select base.batch_id from {{ landed_before('raw', 'orders') }} as base)
    {% endif %}

),

numbered as (

    select
        *,
        row_number() over (
            partition by order_id order by load_id desc, loaded_at desc, batch_id desc
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
where landing = 1
