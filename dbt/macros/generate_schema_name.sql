{#-
    Schema names are exact: `staging` is staging, not `analytics_staging`. Other tools know the tables by these names.
    A preview builds beside them: `preview_staging`.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ env_var('PLUMB_SCHEMA_PREFIX', '') }}{{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
