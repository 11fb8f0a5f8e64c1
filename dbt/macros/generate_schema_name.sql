{#- Schema names are exact: `staging` is staging, not `analytics_staging`. Other tools know the tables by these names. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
