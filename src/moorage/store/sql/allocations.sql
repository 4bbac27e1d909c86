-- name: insert_allocation  plan an allocation
insert into allocations (number, id, app, environment, environment_number, deployment, deployment_number, artifact,
    host, port, state, posture, want, version, log_index, store_password, operation, created_ms)
values (:number, :id, :app, :environment, :environment_number, :deployment, :deployment_number, :artifact,
    :host, :port, 'planned', 'open', 'run', 1, :log_index, :store_password, :operation, :created_ms);

-- name: allocation  one allocation by id
select * from allocations where id = :id;

-- name: allocations_live  allocations that somebody may still have to act on
select * from allocations where posture <> 'gone' order by number;

-- name: allocations_all  the newest allocations, gone ones included
select * from allocations order by number desc limit :limit;

-- name: allocations_of  live allocations of an environment
select * from allocations where environment_number = :environment and posture <> 'gone' order by number;

-- name: ended_since  allocations of a deployment that failed lately, newest first
select * from allocations
where environment_number = :environment and deployment = :deployment and state in ('failed', 'lost')
  and ended_ms >= :since_ms
order by ended_ms desc;

-- name: update_allocation  compare-and-swap by version
update allocations
set state = :state, posture = :posture, want = :want, version = version + 1, log_index = :log_index,
    store_enabled = :store_enabled, reason = :reason, detail = :detail, exit_code = :exit_code, pid = :pid,
    log_tail = :log_tail, ready_ms = :ready_ms, ended_ms = :ended_ms
where id = :id and version = :expected_version;

-- name: append_transition  remember a transition
insert into allocation_transitions (allocation, version, at_ms, actor, state, posture, reason)
values (:allocation, :version, :at_ms, :actor, :state, :posture, :reason);

-- name: transitions  the transitions of an allocation, oldest first
select * from allocation_transitions where allocation = :allocation order by version;

-- name: ports_taken  app ports that are in use or whose removal some edge has not acknowledged
select port from allocations where posture <> 'gone' or log_index > :acked_index
union select store_port from environments where store_port is not null and closed_ms is null;


-- name: allocation_numbered  one allocation by number
select * from allocations where number = :number;
