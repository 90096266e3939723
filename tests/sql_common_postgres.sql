SELECT * FROM users u WHERE u.name ILIKE 'a%' AND u.country IN ('UK', 'US') AND NOT u.id = 3
SELECT count(*) FROM public.users
SELECT * FROM sales.deals
SELECT u FROM users u
SELECT row_to_json(u), to_jsonb(u), json_agg(u) FROM users u GROUP BY u.*
SELECT DISTINCT ON (country) country, name FROM users ORDER BY country, id DESC NULLS LAST
SELECT date_trunc('month', placed_at)::date AS month, round(avg(total), 2) FROM orders GROUP BY 1 ORDER BY 1
SELECT extract(year FROM placed_at), date_part('dow', placed_at), to_char(placed_at, 'YYYY-MM'), age(placed_at) FROM orders
SELECT now() - interval '7 days', current_date - 7, current_timestamp, localtimestamp, make_date(2026, 1, 1), to_date('2026', 'YYYY')
SELECT placed_at AT TIME ZONE 'UTC', placed_at + interval '1 month' * 2, date '2026-01-01', timestamp '2026-01-01 10:00' FROM orders
SELECT count(*) FILTER (WHERE total > 0.1), sum(total) OVER (PARTITION BY user_id ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM orders GROUP BY total, user_id, id
SELECT rank() OVER w, row_number() OVER w, lag(total, 1) OVER w, first_value(id) OVER w FROM orders WINDOW w AS (ORDER BY total DESC)
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total), mode() WITHIN GROUP (ORDER BY user_id), stddev(total), variance(total), corr(id, total) FROM orders
SELECT string_agg(name, ', ' ORDER BY name), array_agg(DISTINCT country), bool_or(id > 1), every(id > 0), min(name), max(name) FROM users
SELECT more -> 'a', more ->> 'a', more #> '{a,0}', more #>> '{a,1,b}', more @> '{"a": []}', more ? 'a', jsonb_array_length(more -> 'a') FROM orders WHERE id = 1
SELECT jsonb_build_object('id', id), jsonb_typeof(more), jsonb_extract_path_text(more, 'a') FROM orders
SELECT key, value FROM orders, jsonb_each(more)
SELECT e.value FROM orders o CROSS JOIN LATERAL jsonb_array_elements(o.more -> 'a') AS e(value)
SELECT name || ' of ' || country, upper(name), lower(name), initcap(name), length(name), left(name, 2), right(name, 2), reverse(name) FROM users
SELECT substring(name FROM 1 FOR 2), substring(name, 1, 2), position('a' IN name), trim(BOTH ' ' FROM name), replace(name, 'a', 'b'), split_part(name, 'a', 1), concat(name, 1), concat_ws('-', name, country) FROM users
SELECT name ~ '^A', name ~* 'a', name !~ 'x', name SIMILAR TO 'A%', name LIKE 'a!%' ESCAPE '!', regexp_replace(name, 'a', 'b', 'g'), regexp_match(name, 'A') FROM users
SELECT coalesce(name, 'none'), nullif(name, ''), greatest(1, 2), least(1, 2), CASE WHEN id = 1 THEN 'one' ELSE 'more' END, CASE id WHEN 1 THEN 'one' END FROM users
SELECT abs(-1), ceil(1.5), floor(1.5), round(1.555, 2), trunc(1.5), mod(5, 2), 5 % 2, power(2, 3), 2 ^ 3, sqrt(4), exp(1), ln(2), log(10), sign(-1), pi(), random() >= 0
SELECT 1 / 2, 1.0 / 2, -id, id::text, CAST(id AS numeric(10, 2)), id::bigint, '5'::int, name::varchar(2), total::double precision, total::real FROM users JOIN orders USING (id)
SELECT id IS NULL, id IS NOT NULL, id IS DISTINCT FROM 1, id BETWEEN 1 AND 2, (id, name) = (1, 'Ada'), id = ANY (ARRAY[1, 2]), id <> ALL (ARRAY[3]), name IS NULL OR true FROM users
SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id) AND id NOT IN (SELECT 5)
SELECT ARRAY[1, 2], ARRAY(SELECT id FROM users), unnest(ARRAY[1, 2]), array_length(ARRAY[1], 1), cardinality(ARRAY[1]), (ARRAY[1, 2])[1], string_to_array('a,b', ','), array_to_string(ARRAY['a'], ',')
SELECT day::date, count(o.id) FROM generate_series('2026-01-01'::date, '2026-01-03'::date, interval '1 day') AS day LEFT JOIN orders o ON o.placed_at::date = day GROUP BY 1 ORDER BY 1
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT sum(x) FROM n
WITH a AS (SELECT * FROM users), b AS MATERIALIZED (SELECT * FROM a) SELECT a.id, b.name FROM a JOIN b ON a.id = b.id
WITH secrets AS (SELECT 1 AS one) SELECT one FROM secrets
SELECT id FROM users UNION SELECT id FROM orders INTERSECT SELECT 1 EXCEPT SELECT 2 ORDER BY 1 LIMIT 5 OFFSET 0
SELECT country, count(*) FROM users GROUP BY ROLLUP (country) HAVING count(*) > 0 ORDER BY 2 DESC FETCH FIRST 3 ROWS ONLY
SELECT country, name, count(*) FROM users GROUP BY GROUPING SETS ((country), (name), ()), CUBE (id)
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(n, letter) FULL OUTER JOIN users ON v.n = users.id NATURAL JOIN (SELECT 1 AS n) AS one
SELECT * FROM users AS u(number, called) WHERE number = 1
SELECT (SELECT max(total) FROM orders) AS most, 'it''s', 'a\b', NULL, true, 1.5e3, "name" AS "Name of it" FROM users
SELECT u.country, count(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id /* why */ GROUP BY u.country -- so
SELECT name COLLATE "C" FROM users ORDER BY name COLLATE "C"
VALUES (1), (2)
(SELECT 1) UNION ALL (SELECT 2 LIMIT 1)
