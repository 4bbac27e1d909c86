-- What was tried with a deployment's preview, the cure of a route, and secrets that the platform makes.

alter table deployments add column facts text not null default '{}';

alter table route_owners add column cure integer not null default 0;

create table environment_secrets (
    environment text not null,
    name        text not null,
    sealed      blob not null,
    previous    blob,
    version     integer not null,
    updated_ms  integer not null,
    primary key (environment, name)
) strict;
