with predictions as (

    select
        request_id,
        customer_id,
        model_version,
        track,
        cast(at as date) as request_day,
        row_number() over (
            partition by request_id, customer_id order by logged_at
        ) as time_logged
    from {{ pinned('serving', 'predictions') }}

),

outcomes as (

    select
        *,
        row_number() over (
            partition by request_id, customer_id order by recorded_at
        ) as time_recorded
    from {{ pinned('serving', 'outcomes') }}

),

followed as (

    select
        predictions.model_version,
        predictions.track,
        predictions.request_day,
        predictions.customer_id,
        outcomes.request_id is not null as is_known,
        coalesce(outcomes.contacted, false) as contacted,
        coalesce(outcomes.ordered, false) as converted,
        coalesce(outcomes.called_support, false) as called_support,
        outcomes.handle_seconds,
        outcomes.simulated
    from predictions
    left join outcomes
        on
            predictions.request_id = outcomes.request_id
            and predictions.customer_id = outcomes.customer_id
            and outcomes.time_recorded = 1
    where predictions.time_logged = 1

),

counted as (

    select
        model_version,
        track,
        request_day,
        count(*) as predictions,
        count_if(is_known) as known_outcomes,
        count_if(contacted) as contacted_customers,
        count_if(converted) as converted_customers,
        count_if(called_support) as support_calls,
        count(distinct case when contacted and converted then customer_id end) as retained_customers,
        avg(handle_seconds) as avg_handle_time,
        bool_or(simulated) as is_simulated
    from followed
    group by model_version, track, request_day

)

select
    model_version,
    track,
    request_day,
    predictions,
    known_outcomes,
    contacted_customers,
    converted_customers,
    support_calls,
    -- Of all whose outcome is known, not of those contacted: whom a version contacts differs by version.
    cast(converted_customers / nullif(known_outcomes, 0) as double) as conversion_rate,
    cast(support_calls / nullif(known_outcomes, 0) as double) as call_center_load,
    retained_customers,
    avg_handle_time,
    is_simulated
from counted
