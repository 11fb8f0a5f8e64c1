{#- What dbt_utils.expression_is_true selects here, with the package from the hub and with the one that stands in for it
    (`dispatch` in dbt_project.yml): the rows for which `expression` is not true, whole, so that a failure can name
    them; null is not true. On a column, the expression is what follows the column's name. -#}
{% macro default__test_expression_is_true(model, expression, column_name=none) %}

select *
from {{ model }}
where not coalesce({{ column_name or '' }} {{ expression }}, false)

{% endmacro %}
