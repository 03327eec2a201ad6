/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *	  What a session that waits for replay does with its snapshot.
 *
 * Replay that removes rows waits for those whose snapshot may see them (see
 * storage/ipc/standby.c): it looks for them by their xmin, and waits for the
 * lock that each has on its virtual transaction id.  A session that itself
 * waits for replay has to take both out of the way, and to put the lock back
 * before anything is read by a new snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "snapshot.h"

/* The transaction that has let go of its lock. */
static VirtualTransactionId let_go;

/*
 * Might this function read a table by the statement's snapshot?  Of those of
 * PostgreSQL only volatile ones do (lo_get() for instance), and those that
 * turn tables into xml; who returns nothing shows nothing.  Ours, written in
 * C, read by new snapshots only.
 */
static bool
may_read(Oid function, void *context)
{
	if (function < FirstNormalObjectId)
		return (func_volatile(function) == PROVOLATILE_VOLATILE &&
				get_func_rettype(function) != VOIDOID) ||
			get_func_rettype(function) == XMLOID;
	return getExtensionOfObject(ProcedureRelationId, function) != *(Oid *) context;
}

static bool
expression_may_read(Node *node, void *context)
{
	if (node == NULL)
		return false;
	/* its checks are not in the plan */
	if (IsA(node, CoerceToDomain))
		return true;
	return check_functions_in_node(node, may_read, context) ||
		expression_tree_walker(node, expression_may_read, context);
}

/* Is this no more than a call of functions that do not read? */
static bool
only_calls(Plan *plan, Oid *extension)
{
	if (plan == NULL)
		return true;
	if (IsA(plan, FunctionScan))
	{
		ListCell   *lc;

		foreach(lc, ((FunctionScan *) plan)->functions)
		{
			if (expression_may_read(lfirst_node(RangeTblFunction, lc)->funcexpr, extension))
				return false;
		}
	}
	else if (IsA(plan, Limit))
	{
		if (expression_may_read(((Limit *) plan)->limitOffset, extension) ||
			expression_may_read(((Limit *) plan)->limitCount, extension))
			return false;
	}
	else if (!IsA(plan, Result) && !IsA(plan, ProjectSet) &&
			 !IsA(plan, Agg) && !IsA(plan, Sort) && !IsA(plan, Unique))
		return false;
	return !expression_may_read((Node *) plan->targetlist, extension) &&
		!expression_may_read((Node *) plan->qual, extension) &&
		only_calls(plan->lefttree, extension);
}

/* Is the session's statement, which has called us, of that kind? */
static bool
statement_only_calls(void)
{
	Oid			extension = get_extension_oid("multisite_repl", true);
	PlannedStmt *stmt;

	if (ActivePortal == NULL || list_length(ActivePortal->stmts) != 1)
		return false;
	stmt = linitial_node(PlannedStmt, ActivePortal->stmts);
	return stmt->commandType == CMD_SELECT && stmt->subplans == NIL &&
		only_calls(stmt->planTree, &extension);
}

void
let_go_of_snapshot(void)
{
	bool		may = RecoveryInProgress() && !IsTransactionBlock() &&
	!IsolationUsesXactSnapshot() && statement_only_calls();

	InvalidateCatalogSnapshot();
	/* a function's cursor may share the snapshot of the statement that called it */
	if (!may || !ThereAreNoPriorRegisteredSnapshots() ||
		!ActiveSnapshotSet() || GetActiveSnapshot()->active_count != 1)
		return;
	MY_XMIN_COMPAT = InvalidTransactionId;

	/*
	 * Replay may have met the snapshot already.  Then it waits for the end of
	 * this virtual transaction, whatever becomes of xmin.  To end its lock
	 * early is to say that its snapshot is gone.
	 */
	GET_VXID_FROM_PGPROC(let_go, *MyProc);
	VirtualXactLockTableCleanup();
}

void
hold_snapshots_again(void)
{
	VirtualTransactionId mine;

	GET_VXID_FROM_PGPROC(mine, *MyProc);
	if (VirtualTransactionIdEquals(mine, let_go))
	{
		SetInvalidVirtualTransactionId(let_go);
		VirtualXactLockTableInsert(mine);
	}
}
