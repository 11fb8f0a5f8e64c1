{#- The order of a row's versions in raw, the newest first: plumbline.contracts.contract.VERSION_ORDER, turned round. -#}
{% macro newest_first() %}known_at desc, loaded_at desc, batch_id desc{% endmacro %}
