-- name: next_counter  raise a counter by one
insert into counters (name, value) values (:name, 1)
on conflict (name) do update set value = value + 1
returning value;

-- name: counter  read a counter
select value from counters where name = :name;

-- name: put_meta  write a fact about the installation once
insert into meta (name, value) values (:name, :value) on conflict (name) do nothing;

-- name: meta  read a fact about the installation
select value from meta where name = :name;

-- name: append_outbox  add an entry to the log
insert into outbox (log_index, at_ms, event) values (:log_index, :at_ms, :event);

-- name: outbox_after  entries after an index, oldest first
select log_index, at_ms, event from outbox where log_index > :after order by log_index limit :limit;

-- name: outbox_first  the oldest kept index
select min(log_index) as log_index from outbox;

-- name: trim_outbox  forget entries that every reader has
delete from outbox where log_index <= :through;

-- name: append_audit  record who did what
insert into audit (at_ms, actor, action, subject, outcome, detail)
values (:at_ms, :actor, :action, :subject, :outcome, :detail);

-- name: audit_of  what was done to a subject, newest first
select * from audit where subject = :subject order by seq desc limit :limit;

-- name: put_edge  remember what an edge has acknowledged
insert into edges (id, acked_index, seen_ms) values (:id, :acked_index, :seen_ms)
on conflict (id) do update set acked_index = excluded.acked_index, seen_ms = excluded.seen_ms;

-- name: edges  all edges ever seen
select * from edges order by id;
