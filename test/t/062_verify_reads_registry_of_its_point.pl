
# multisite_verify() goes to the point, and asks the segments that are
# registered there: not those as of when it was called.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('registry', segments => 1);

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->init_remote($_)->start foreach $c->ids;
$c->wait_applied($c->create_point('one'));
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->register(0, 'dr');
$c->sql(-1, q{SELECT multisite_create_verified_point('v')});
$c->wait_applied($c->create_point('after'), 'staged');
is($c->remote_sql(-1, q{SELECT count(*) FILTER (WHERE result <> 'equal') FROM multisite_verify('v', timeout => '60 s')}), '0',
	'a segment that was registered before the point is asked');

done_testing();
