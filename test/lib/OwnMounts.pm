
=pod

=head1 NAME

OwnMounts - runs the test where it may mount file systems of its own

=head1 SYNOPSIS

  use OwnMounts;				# before PostgreSQL::Test::Cluster

  plan skip_all => $OwnMounts::missing if $OwnMounts::missing;

=head1 DESCRIPTION

The test runs again in a mount namespace; that needs no root where user
namespaces are allowed.  $missing says why not.

=cut

package OwnMounts;

use strict;
use warnings;

our $missing;

BEGIN
{
	if (!$ENV{MULTISITE_UNSHARED})
	{
		my @unshare = ('unshare', '-Um', '-c', '--keep-caps');

		if (system("@unshare true 2>/dev/null") != 0)
		{
			$missing = 'no right to mount file systems';
		}
		else
		{
			$ENV{MULTISITE_UNSHARED} = 1;
			exec(@unshare, $^X, (map { "-I$_" } @INC), $0) or die "could not exec: $!";
		}
	}
}

1;
