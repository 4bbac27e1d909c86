-- name: insert_operation  create an operation
insert into operations (id, kind, app, parent, state, input, actor, created_ms, updated_ms)
values (:id, :kind, :app, :parent, :state, :input, :actor, :now_ms, :now_ms);

-- name: operation  one operation
select * from operations where id = :id;

-- name: operations_open  operations that are not finished, oldest first
select * from operations where finished_ms is null order by created_ms, id;

-- name: operations_of_app  operations of an app, newest first
select * from operations where app = :app order by created_ms desc, id desc limit :limit;

-- name: operations_newest  the newest operations
select * from operations order by created_ms desc, id desc limit :limit;

-- name: children  operations that an operation has started
select * from operations where parent = :parent order by created_ms, id;

-- name: take_lease  lease an operation: the token rises, so that every older worker is fenced
update operations set lease_owner = :owner, token = token + 1
where id = :id and token = :expected_token and finished_ms is null;

-- name: record_state  write a stage under the token of the lease
update operations
set state = :state, facts = :facts, problem = coalesce(:problem, problem), updated_ms = :now_ms,
    finished_ms = :finished_ms
where id = :id and token = :expected_token and finished_ms is null;

-- name: append_stage  remember a stage
insert into operation_stages (operation, seq, state, note, detail, actor, token, at_ms)
select :operation, coalesce(max(seq), 0) + 1, :state, :note, :detail, :actor, :token, :at_ms
from operation_stages where operation = :operation;

-- name: stages  the stages of an operation after a sequence number, oldest first
select * from operation_stages where operation = :operation and seq > :after order by seq;

-- name: request_cancel  ask an operation to stop
update operations set cancel = 1, updated_ms = :now_ms where id = :id and finished_ms is null;

-- name: idempotent  the record of an idempotency key
select * from idempotency where workspace = :workspace and key = :key;

-- name: remember_answer  keep the answer of a mutation under its key
insert into idempotency (workspace, key, fingerprint, status, body, created_ms)
values (:workspace, :key, :fingerprint, :status, :body, :created_ms);

-- name: answers_before  whether there are keys that are old enough to be dropped
select 1 from idempotency where created_ms < :before_ms limit 1;

-- name: forget_answers  drop keys that are old enough
delete from idempotency where created_ms < :before_ms;
