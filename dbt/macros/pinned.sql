{#-
    A source table at the version that this run pinned, instead of whatever is newest.
    It comes from transform.build in PLUMB_PINS, one JSON object {"raw.orders": "delta.`…` VERSION AS OF 12", …};
    batches that a gate rejected are left out there.
-#}
{% macro pinned(schema, table) -%}
    {%- set relation = source(schema, table) -%}
    {%- if execute and model.resource_type != 'unit_test' -%}
        {{ at_version(schema, table, 'PLUMB_PINS') }}
    {%- else -%}
        {{ relation }}
    {%- endif -%}
{%- endmacro %}


{#- The same table as the base release had it: what an incremental model has taken in already (PLUMB_BASE_PINS). -#}
{% macro landed_before(schema, table) -%}
    {%- do source(schema, table) -%}
    {%- if execute -%} {{ at_version(schema, table, 'PLUMB_BASE_PINS') }} {%- endif -%}
{%- endmacro %}


{% macro at_version(schema, table, variable) -%}
    {%- set name = schema ~ '.' ~ table -%}
    {%- set pins = fromjson(env_var(variable, '{}')) -%}
    {%- if name not in pins -%}
        {{ exceptions.raise_compiler_error(variable ~ ' names no version of ' ~ name ~ ': run dbt as `plumb dbt …`, which sets it') }}
    {%- endif -%}
    {{ pins[name] }}
{%- endmacro %}


{#-
    Whether this run merges into what the base release has. A macro of its own because dbt's unit tests cannot give
    `this` beside an input of the same relation name (staging.orders, analytics.orders); they set this one instead.
-#}
{% macro on_top_of_base() -%}
    {{ return(is_incremental()) }}
{%- endmacro %}


{#- The model itself as the base release has it, for what a merge builds on. A macro for the reason above. -#}
{% macro built_before() -%}
    {{ this }}
{%- endmacro %}


{#-
    Takes the rows out of an incremental mart whose keys the shop deleted, as this run landed it. A MERGE of dbt's
    inserts and updates only. Nothing is run when no deletion landed (PLUMB_DELETIONS, set by transform.build).
-#}
{% macro delete_gone(source, key) -%}
    {%- if on_top_of_base() and source in fromjson(env_var('PLUMB_DELETIONS', '[]')) -%}
        merge into {{ this }} as mart
        using (
            select staged.{{ key }}
            from {{ ref('stg_' ~ source) }} as staged
            left anti join {{ landed_before('raw', source) }} as base on staged.batch_id = base.batch_id
            group by staged.{{ key }}
            having max_by(
                staged.deleted_at is not null, struct(staged.known_at, staged.loaded_at, staged.batch_id)
            )
        ) as gone
        on mart.{{ key }} = gone.{{ key }}
        when matched then delete
    {%- endif -%}
{%- endmacro %}
