"""Statements that must not get through. The secret is in `secrets.word` and in `users.password`, which is hidden.

{folder} is a directory that the database may write to, {secret} the secret.
"""

from __future__ import annotations

SECRET = "canary-4711"

_BOTH = """
DELETE FROM users
DELETE FROM users WHERE id = 1 RETURNING name
UPDATE users SET name = 'x'
UPDATE users SET name = 'x' FROM orders WHERE orders.user_id = users.id
INSERT INTO users (name) VALUES ('x')
INSERT INTO users (id, name) SELECT 9, name FROM users
INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'x'
DROP TABLE users
DROP TABLE IF EXISTS users CASCADE
DROP VIEW peek
DROP INDEX i
CREATE TABLE t (x int)
CREATE TABLE t AS SELECT * FROM users
CREATE TEMP TABLE t (x int)
CREATE TEMP VIEW v AS SELECT * FROM secrets
CREATE VIEW v AS SELECT * FROM secrets
CREATE INDEX i ON users (name)
ALTER TABLE users ADD COLUMN x int
ALTER TABLE users RENAME TO u
REINDEX
ANALYZE
VACUUM
BEGIN
COMMIT
ROLLBACK
SAVEPOINT s
RELEASE s
START TRANSACTION
SELECT * FROM secrets
SELECT count(*) FROM secrets
SELECT 1 FROM secrets
SELECT * FROM "secrets"
SELECT * FROM peek
SELECT count(*) FROM peek
SELECT s.* FROM users u, secrets s
SELECT name FROM users JOIN secrets ON 1 = 1
SELECT name FROM users LEFT JOIN secrets ON word LIKE 'c%'
WITH users AS (SELECT word FROM secrets) SELECT * FROM users
WITH RECURSIVE secrets(x) AS (SELECT 1 UNION ALL SELECT x FROM secrets, peek) SELECT * FROM secrets
SELECT * FROM (WITH secrets AS (SELECT 1 AS one) SELECT * FROM secrets) AS q, secrets
SELECT name FROM users UNION ALL SELECT word FROM secrets
SELECT name FROM users INTERSECT SELECT word FROM secrets
SELECT name FROM users EXCEPT SELECT word FROM secrets
SELECT (SELECT word FROM secrets)
SELECT name, (SELECT max(word) FROM secrets) FROM users
SELECT name FROM users WHERE EXISTS (SELECT 1 FROM secrets WHERE word LIKE 'c%')
SELECT name FROM users WHERE name IN (SELECT word FROM secrets)
SELECT name FROM users ORDER BY (SELECT word FROM secrets)
SELECT name FROM users LIMIT (SELECT count(*) FROM secrets)
SELECT CASE WHEN (SELECT word FROM secrets) LIKE 'c%' THEN 1 END
SELECT password FROM users
SELECT users.password FROM users
SELECT u.PASSWORD FROM users AS u
SELECT u."password" FROM users AS u
SELECT name FROM users WHERE password LIKE 'c%'
SELECT name FROM users ORDER BY password
SELECT count(*) FROM users GROUP BY password
SELECT max(password) FROM users
SELECT name FROM users a JOIN orders b ON a.password = 'x'
SELECT rank() OVER (ORDER BY password) FROM users
SELECT x.password FROM (SELECT u.* , u.password FROM users u) AS x
SELECT name FROM users WHERE id IN (SELECT id FROM users WHERE password > 'c')
SELECT name FROM users JOIN (SELECT '{secret}' AS password) AS p USING (password)
SELECT 1 FROM (SELECT '{secret}' AS word) AS p NATURAL JOIN secrets
SELECT 1 FROM (SELECT '{secret}' AS word) AS p JOIN secrets USING (word)
EXPLAIN DELETE FROM users
EXPLAIN SELECT * FROM secrets
EXPLAIN ANALYZE DELETE FROM users
SELECT 1; DELETE FROM users
SELECT 1; SELECT 2
SELECT 1;; DROP TABLE users
;DELETE FROM users
SELECT 1 /* ; */ ; /* */ DELETE FROM users --
SELECT 1 -- ⏎FROM users; DELETE FROM users
/* hi */ DELETE /* there */ FROM users -- bye
/*! DELETE FROM users */
-- SELECT⏎DELETE FROM users
DELETE\u00a0FROM users
\ufeffDELETE FROM users
WITH gone AS (DELETE FROM users RETURNING *) SELECT * FROM gone
WITH gone AS (UPDATE users SET name = 'x' RETURNING *) SELECT count(*) FROM gone
WITH made AS (INSERT INTO users (id) VALUES (7) RETURNING id) SELECT 1
WITH a AS (SELECT 1) DELETE FROM users
WITH a AS (SELECT 1) INSERT INTO users (id) SELECT * FROM a
SELECT load_extension('x')
SELECT nonsense(1)
nonsense
SELECT ((((((((((
SELECT 'open
SELECT "open
SELECT /* open
SELECT '\ud800'
SELECT '\x00'
SELECT 1 \x00; DELETE FROM users
GRANT ALL ON users TO PUBLIC
SET x = 1
USE other
CALL p()
SHOW TABLES
"""

_SQLITE = """
SELECT
REPLACE INTO users (id) VALUES (1)
CREATE TRIGGER t AFTER INSERT ON users BEGIN DELETE FROM users; END
CREATE VIRTUAL TABLE f USING fts5(x)
CREATE TABLE main.t (x)
VACUUM INTO '{folder}/copy.db'
VACUUM main INTO '{folder}/copy.db'
ATTACH '{folder}/other.db' AS other
ATTACH DATABASE 'file:{folder}/other.db?mode=rwc' AS other
ATTACH '' AS other
DETACH main
PRAGMA query_only = 0
PRAGMA writable_schema = 1
PRAGMA journal_mode = WAL
PRAGMA user_version = 9
PRAGMA wal_checkpoint
PRAGMA table_info(secrets)
PRAGMA database_list
PRAGMA temp_store_directory = '{folder}'
pragma/**/query_only(0)
SELECT * FROM main.secrets
SELECT * FROM "SECRETS"
SELECT * FROM [secrets]
SELECT * FROM `secrets`
SELECT * FROM temp.secrets
WITH secrets AS (SELECT * FROM main.secrets) SELECT count(*) FROM secrets
SELECT * FROM users
SELECT a.name FROM users a NATURAL JOIN users b
SELECT 1 FROM (SELECT '{secret}' AS word) JOIN users ON ?1natural JOIN secrets
SELECT name FROM users JOIN (SELECT '{secret}' AS password)⏎uSiNg/**/(password)
SELECT sql FROM sqlite_master
SELECT count(*) FROM sqlite_schema
SELECT * FROM sqlite_temp_master
SELECT * FROM sqlite_sequence
SELECT * FROM pragma_table_info('secrets')
SELECT count(*) FROM pragma_table_list
SELECT * FROM pragma_database_list
SELECT * FROM dbstat
SELECT * FROM sqlite_dbpage
SELECT * FROM sqlite_stmt
SELECT * FROM json_each('[1]')
SELECT * FROM json_tree('[1]')
SELECT * FROM generate_series(1, 9)
SELECT * FROM fts5vocab
SELECT sqlite_version()
SELECT sqlite_source_id()
SELECT sqlite_compileoption_get(1)
SELECT last_insert_rowid()
SELECT changes()
SELECT randomblob(10)
SELECT zeroblob(10)
SELECT hex(zeroblob(400000000))
SELECT printf('%d', 1)
SELECT format('%.999999999c', 'x')
SELECT fts3_tokenizer('simple')
SELECT readfile('/etc/passwd')
SELECT writefile('{folder}/x', 'x')
SELECT edit('x')
SELECT sqlite_rename_table(1, 2, 3, 4, 5, 6, 7)
"""

_POSTGRES = """
TRUNCATE users
SELECT $tag$ open
WITH a AS (SELECT 1), b AS (SELECT * FROM secrets) SELECT * FROM a
MERGE INTO users USING orders ON true WHEN MATCHED THEN DELETE
LOCK TABLE users
CLUSTER
CHECKPOINT
DISCARD ALL
RESET ALL
LISTEN x
NOTIFY x
LOAD 'x'
PREPARE p AS DELETE FROM users
EXECUTE p
DEALLOCATE ALL
DECLARE c CURSOR FOR SELECT 1
FETCH ALL FROM c
PREPARE TRANSACTION 'x'
COMMIT PREPARED 'x'
SET TRANSACTION READ WRITE
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE
SET default_transaction_read_only = off
SET ROLE owner
SET SESSION AUTHORIZATION owner
SET statement_timeout = 0
SHOW data_directory
COPY users TO '{folder}/users'
COPY users TO PROGRAM 'touch {folder}/program'
COPY (SELECT * FROM secrets) TO STDOUT
COPY users FROM '{folder}/users'
COPY users FROM PROGRAM 'touch {folder}/program'
DO $$ BEGIN DELETE FROM users; END $$
DO LANGUAGE plpgsql 'BEGIN DELETE FROM users; END'
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE EXTENSION dblink
CREATE ROLE r SUPERUSER
CREATE SCHEMA s
CREATE SEQUENCE s
CREATE UNLOGGED TABLE t (x int)
CREATE MATERIALIZED VIEW m AS SELECT * FROM secrets
REFRESH MATERIALIZED VIEW m
ALTER SYSTEM SET fsync = off
ALTER ROLE CURRENT_USER SET search_path = 'x'
ALTER ROLE CURRENT_USER PASSWORD 'x'
ALTER DATABASE postgres SET x.y = 'z'
COMMENT ON TABLE users IS 'x'
REASSIGN OWNED BY CURRENT_USER TO owner
IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y
SELECT * INTO t FROM users
SELECT id INTO TEMP t FROM users
SELECT INTO t FROM users
SELECT name FROM users FOR UPDATE
SELECT name FROM users FOR SHARE
SELECT name FROM users FOR NO KEY UPDATE SKIP LOCKED
SELECT name FROM (SELECT name FROM users FOR UPDATE) AS q
TABLE secrets
TABLE ONLY secrets
SELECT * FROM ONLY users
SELECT * FROM public.secrets
SELECT * FROM postgres.public.secrets
SELECT * FROM "public"."secrets"
SELECT * FROM U&"secret\\0073"
SELECT E'\\x41'
SELECT U&'\\0041'
SELECT E'\\\\', '; DELETE FROM users --'
SELECT secrets FROM secrets
SELECT * FROM secrets TABLESAMPLE SYSTEM (100)
SELECT pg_read_file('/etc/passwd')
SELECT pg_read_binary_file('/etc/passwd')
SELECT pg_ls_dir('.')
SELECT * FROM pg_ls_dir('.')
SELECT pg_stat_file('/etc/passwd')
SELECT pg_file_write('{folder}/x', 'x', false)
SELECT pg_sleep(10)
SELECT pg_sleep_for('10 s')
SELECT 1 FROM pg_sleep(10)
SELECT public.pg_sleep(10)
SELECT pg_catalog.pg_sleep(10)
SELECT "pg_sleep"(10)
SELECT pg_sleep /* */ (10)
SELECT pg_terminate_backend(pg_backend_pid())
SELECT pg_cancel_backend(1)
SELECT pg_reload_conf()
SELECT pg_rotate_logfile()
SELECT pg_switch_wal()
SELECT pg_create_restore_point('x')
SELECT pg_advisory_lock(1)
SELECT pg_try_advisory_xact_lock(1)
SELECT pg_notify('x', 'y')
SELECT pg_logical_emit_message(false, 'x', 'y')
SELECT pg_export_snapshot()
SELECT txid_current()
SELECT set_config('transaction_read_only', 'off', false)
SELECT set_config('statement_timeout', '0', false)
SELECT current_setting('data_directory')
SELECT version()
SELECT inet_server_addr()
SELECT current_user
SELECT session_user
SELECT current_database()
SELECT current_schema()
SELECT lo_import('/etc/passwd')
SELECT lo_export(1, '{folder}/object')
SELECT lo_create(4711)
SELECT lo_from_bytea(0, 'x')
SELECT lo_put(1, 0, 'x')
SELECT lo_unlink(1)
SELECT loread(lo_open(1, 131072), 10)
SELECT dblink('host=127.0.0.1', 'SELECT 1')
SELECT dblink_connect('x')
SELECT dblink_exec('x', 'DELETE FROM users')
SELECT nextval('numbers')
SELECT setval('numbers', 99)
SELECT damage()
SELECT public.damage()
SELECT * FROM damage()
SELECT * FROM ROWS FROM (damage()) AS x
SELECT name FROM users WHERE damage() > 0
SELECT name FROM users ORDER BY public.damage()
SELECT (SELECT damage())
SELECT 1 OPERATOR(public.@#@) 1
SELECT 1 @#@ 1
SELECT query_to_xml('SELECT * FROM secrets', true, true, '')
SELECT query_to_xml_and_xmlschema('DELETE FROM users', true, true, '')
SELECT table_to_xml('secrets', true, true, '')
SELECT cursor_to_xml('c', 1, true, true, '')
SELECT database_to_xml(true, true, '')
SELECT schema_to_xml('public', true, true, '')
SELECT ts_stat('SELECT to_tsvector(word) FROM secrets')
SELECT * FROM ts_stat('SELECT to_tsvector(word) FROM secrets')
SELECT xpath('/x', '<x/>')
SELECT xmlparse(DOCUMENT '<!DOCTYPE x SYSTEM "/etc/passwd"><x/>')
SELECT * FROM XMLTABLE('/x' PASSING '<x/>' COLUMNS y text)
SELECT * FROM pg_catalog.pg_class
SELECT * FROM pg_class
SELECT * FROM pg_shadow
SELECT passwd FROM pg_catalog.pg_shadow
SELECT * FROM pg_roles
SELECT * FROM pg_stat_activity
SELECT query FROM pg_stat_activity
SELECT most_common_vals FROM pg_stats WHERE tablename = 'secrets'
SELECT * FROM pg_settings
SELECT * FROM pg_largeobject
SELECT * FROM pg_file_settings
SELECT * FROM pg_hba_file_rules
SELECT * FROM information_schema.tables
SELECT * FROM information_schema.columns
WITH pg_shadow AS (SELECT 1) SELECT * FROM pg_shadow
SELECT 'secrets'::regclass
SELECT 'users'::regclass::oid
SELECT to_regclass('secrets')
SELECT pg_relation_filepath('users')
SELECT pg_relation_size('secrets')
SELECT pg_get_viewdef('peek')
SELECT obj_description(1)
SELECT has_table_privilege('secrets', 'SELECT')
SELECT col_description(1, 1)
SELECT NULL::secrets
SELECT (NULL::users).password
SELECT (u).password FROM users u
SELECT (u.*).password FROM users u
SELECT (SELECT u FROM users u LIMIT 1).password
SELECT ROW(u.*)::users FROM users u
SELECT jsonb_populate_record(NULL::users, '{}')
SELECT repeat('x', 1000000000)
SELECT lpad('x', 1000000000)
SELECT rpad('x', 1000000000)
SELECT format('%1000000000s', 'x')
SELECT array_fill(1, ARRAY[100000000])
SELECT encode('x', 'base64')
SELECT gen_random_bytes(1000000)
SELECT pg_column_size(users) FROM users
SELECT $1
SELECT %s
SELECT :name
SELECT 1 \\; DELETE FROM users
SELECT 1 \\g {folder}/x
\\! touch {folder}/x
SELECT 1 LIMIT 1 WITH TIES
"""


def _read(text: str, folder: str) -> list[str]:
    """One statement a line; ⏎ is a line break in one."""
    lines = [line.replace("⏎", "\n") for line in text.split("\n") if line.strip()]
    return [line.replace("{folder}", folder).replace("{secret}", SECRET) for line in lines]


def on_sqlite(folder: str) -> list[str]:
    return ["", ";", " ", *_read(_BOTH, folder), *_read(_SQLITE, folder)]


def on_postgres(folder: str) -> list[str]:
    return ["", ";", " ", *_read(_BOTH, folder), *_read(_POSTGRES, folder)]
