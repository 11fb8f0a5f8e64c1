{#- Rows for which `expression` is not true; on a column, the expression is what follows the column's name. -#}
{% test expression_is_true(model, expression, column_name=none) %}

select {{ column_name if column_name and not should_store_failures() else '*' }}
from {{ model }}
where not coalesce({{ column_name or '' }} {{ expression }}, false)

{% endtest %}
