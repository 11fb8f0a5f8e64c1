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
