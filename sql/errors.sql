-- Bad input gets a clear error.
CREATE EXTENSION multisite_repl;

-- settings
ALTER SYSTEM SET multisite.brokers = 'host:port';
ALTER SYSTEM SET multisite.brokers = 'a:9092,,b:9092';
ALTER SYSTEM SET multisite.brokers = 'a:9092, b:9092';
ALTER SYSTEM SET multisite.brokers = 'a:99999';
ALTER SYSTEM SET multisite.brokers = 'a:0';
ALTER SYSTEM SET multisite.brokers = 'a:';
ALTER SYSTEM SET multisite.brokers = ':9092';
ALTER SYSTEM SET multisite.brokers = 'a:9092,';
ALTER SYSTEM SET multisite.brokers = ' ';
ALTER SYSTEM SET multisite.brokers = 'localhost:9092;localhost:9093';
ALTER SYSTEM SET multisite.brokers = 'localhost;localhost:9093';
ALTER SYSTEM SET multisite.brokers = 'a/b:9092';
ALTER SYSTEM SET multisite.brokers = '[::1]:99999';
ALTER SYSTEM SET multisite.brokers = '[::1]9092';
ALTER SYSTEM SET multisite.brokers = '[::1';
ALTER SYSTEM SET multisite.brokers = '[]:9092';
ALTER SYSTEM SET multisite.brokers = '::1';
-- and these are taken
ALTER SYSTEM SET multisite.brokers = 'kafka-1.example,10.0.0.1:9092,[::1],[fe80::1%eth0]:9092,SASL_SSL://k:9093';
ALTER SYSTEM SET multisite.brokers = '';
ALTER SYSTEM RESET multisite.brokers;
ALTER SYSTEM SET multisite.database = '';
ALTER SYSTEM SET multisite.cluster_name = 'with.dot';
ALTER SYSTEM SET multisite.site_name = '';
ALTER SYSTEM SET multisite.source_site = 'with space';
ALTER SYSTEM SET multisite.compression = 'bzip2';
ALTER SYSTEM SET multisite.durability = 'none';
ALTER SYSTEM SET multisite.segment_id = -2;
-- 16 puts units into the message
\set VERBOSITY sqlstate
ALTER SYSTEM SET multisite.barrier_timeout = '1ms';
\set VERBOSITY default
ALTER SYSTEM SET multisite.replication_factor = 0;
ALTER SYSTEM SET multisite.kafka_options = 'acks=0';
ALTER SYSTEM SET multisite.kafka_options = 'no.such.option=1';
ALTER SYSTEM SET multisite.kafka_options = 'socket.timeout.ms=geheim';
ALTER SYSTEM SET multisite.kafka_options = 'nonsense';
ALTER SYSTEM SET multisite.kafka_options = '=1';
-- a mistyped setting is refused, where the server can do that: from 15 on
DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		BEGIN
			SET multisite.unknown = 1;
			RAISE 'a mistyped setting was taken';
		EXCEPTION WHEN invalid_name THEN NULL;
		END;
	END IF;
END $$;

-- names of points
SELECT multisite_create_consistency_point('');
SELECT multisite_create_consistency_point(repeat('x', 64));
SELECT multisite_create_consistency_point(E'line\nbreak');
SELECT multisite_create_consistency_point(' ');
SELECT multisite_create_consistency_point(' leading');
SELECT multisite_create_consistency_point('trailing ');
SELECT multisite_create_consistency_point('multisite_1');
SELECT multisite_create_consistency_point('twice');
\set VERBOSITY terse
SELECT multisite_create_consistency_point('twice');
\set VERBOSITY default

-- waiting
SELECT multisite_wait_for_consistency_point('unknown');
SELECT multisite_wait_for_consistency_point('twice', 'baked');
SELECT multisite_wait_for_consistency_point('twice', 'applied', '-1 s');

-- segments
SELECT multisite_add_segment(-2, 'host=a');
SELECT multisite_add_segment(0, 'nonsense');
SELECT multisite_add_segment(0, 'host=a', 'a.b');
SELECT multisite_remove_segment(7);
SELECT multisite_add_segment(NULL, 'host=a');
SELECT multisite_add_segment(1, NULL);
SELECT multisite_remove_segment(NULL);

-- a segment that cannot be reached
SELECT multisite_add_segment(3, 'host=/nowhere user=u');
\set VERBOSITY terse
SELECT multisite_create_consistency_point('unreachable');
\set VERBOSITY default
SELECT multisite_remove_segment(3);

-- the registry must not lead to this very server, nor to anybody else
DO $$
BEGIN
	PERFORM multisite_add_segment(3, format('host=%s port=%s user=%s dbname=postgres',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_user));
END $$;
SELECT multisite_create_consistency_point('myself');
SELECT multisite_remove_segment(3);

-- what belongs on the other site
SELECT multisite_promote();
SELECT multisite_pause();
SELECT multisite_resume();
SELECT * FROM multisite_in_doubt;
SELECT * FROM multisite_resolve_in_doubt();
SELECT * FROM multisite.prepared_outcomes('a', '{}');

-- the barrier's parts, called by hand
SELECT * FROM multisite.write_restore_point('no barrier');
SELECT multisite.barrier_raise(1000);
\set VERBOSITY terse
SELECT multisite.barrier_raise(1000);
\set VERBOSITY default
SELECT multisite.barrier_lower();
SELECT multisite.barrier_lower();

-- verified points
SELECT multisite_create_verified_point('multisite_mine');
SELECT multisite_create_verified_point('nowhere', '{public.nowhere}');
SELECT * FROM multisite_verify('p');
SELECT * FROM multisite_verify(NULL);

DROP EXTENSION multisite_repl;
