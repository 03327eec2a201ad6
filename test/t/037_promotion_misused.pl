
# multisite_promote() called as one should not: while paused, by two at once,
# cancelled and called again, while a segment is down; and once more afterwards.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('misuse', segments => 1);

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->start_remote;
$c->wait_applied($c->create_point('one'));

# paused, and a newer point is staged on all segments
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql($_, 'INSERT INTO t VALUES (1)') foreach $c->ids;
$c->wait_applied($c->create_point('two'), 'staged');
my %digest = map { $_ => $c->digest($c->source($_), 't') } $c->ids;

# a third one is not: a segment lags, and is down
$c->remote(0)->stop;
$c->sql($_, 'INSERT INTO t VALUES (2)') foreach $c->ids;
$c->create_point('three');
$c->wait_for($c->remote(-1), q{SELECT staged_point = 'three' FROM multisite_segments WHERE site = 'dr' AND segment_id = -1});
$c->cut_source;
my ($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote('three')});
isnt($status, 0, 'not at a point that a segment does not have');
like($err, qr/"three" is not staged on all segments.*Segment 0 does not have it/s, 'and the error says which segment');

# one is cancelled, two more call it at once, and the segment is still down
($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SET statement_timeout = '3s'; SELECT multisite_promote()});
like($err, qr/canceling statement due to statement timeout/, 'cancelled while it waits for the segment');
($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote(timeout => '2 s')});
like($err, qr/the promotion at consistency point "two" is not finished yet/, 'or its timeout passes');
($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote('one')});
isnt($status, 0, 'at another point it is refused');
($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_pause()});
like($err, qr/a promotion to consistency point "two" is under way/, 'so is a pause');
my @sessions = map { $c->remote(-1)->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
$_->query_until(qr/begun/, "\\echo begun\nSELECT multisite_promote();\n") foreach @sessions;
is($c->remote_sql(-1, 'SELECT pg_is_in_recovery()'), 't', 'the coordinator waits');

$c->remote(0)->start;
$c->wait_for($c->remote($_), 'SELECT NOT pg_is_in_recovery()') foreach $c->ids;
$c->wait_for($c->remote(-1), q{SELECT state = 'promoted' FROM multisite_status WHERE worker = 'receiver'});
is($c->digest($c->remote($_), 't'), $digest{$_}, "segment $_ is at \"two\"") foreach $c->ids;
my ($name, $notices) = $c->promote;
is($name, 'two', 'called on the promoted site it says at which point');
like($notices, qr/promoted already/, 'and that it was done before');
($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote('three')});
like($err, qr/this site is promoted already, at consistency point "two"/, 'another point is refused');

# across a restart, too
$c->remote($_)->restart foreach $c->ids;
$c->wait_for($c->remote(-1), q{SELECT state = 'promoted' FROM multisite_status WHERE worker = 'receiver'});
($name) = $c->promote;
is($name, 'two', 'so after a restart');

done_testing();
