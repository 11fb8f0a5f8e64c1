{#- Rows for which `expression` is not true, whole, so that a failure can name them; on a column, the expression is
    what follows the column's name. -#}
{% test expression_is_true(model, expression, column_name=none) %}

select *
from {{ model }}
where not coalesce({{ column_name or '' }} {{ expression }}, false)

{% endtest %}
