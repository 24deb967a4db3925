/*
 * engine_networks.c
 *		The calls about networks: look, list, create, remove, connect.
 *
 * An engine takes an id, or the beginning of one, for a name, and has a network
 * "host" that nobody may join: so a network is looked at before it is used, and
 * what answers must bear the name that was asked for.
 */
#include "postgres.h"

#include "engine_internal.h"


#define MAX_LISTED 16384 /* more than an engine can have */

bool
cm_engine_is_built_in_network(const char *name)
{
	return strcmp(name, "bridge") == 0 || strcmp(name, "none") == 0;
}

/* ---- look and list ---- */

static void
copy_subnets(char *out, size_t out_size, const CmJson *network)
{
	const CmJson *config = cm_json_path(network, "IPAM", "Config");
	StringInfoData subnets;

	initStringInfo(&subnets);
	for (int i = 0; config != NULL && config->kind == CM_JSON_ARRAY && i < config->count; i++)
	{
		const char *subnet = cm_json_string(cm_json_get(config->items[i], "Subnet"), "");

		if (subnet[0] != '\0')
			appendStringInfo(&subnets, "%s%s", subnets.len > 0 ? ", " : "", subnet);
	}
	cm_engine_copy_line(out, out_size, subnets.data, subnets.len);
	pfree(subnets.data);
}

/* false: it makes no sense. */
static bool
take_network(const CmJson *network, CmNetworkFacts *facts)
{
	const CmJson *labels = cm_json_get(network, "Labels");

	memset(facts, 0, sizeof(*facts));
	cm_engine_copy_member(facts->name, sizeof(facts->name), network, "Name");
	cm_engine_copy_member(facts->driver, sizeof(facts->driver), network, "Driver");
	cm_engine_copy_member(facts->scope, sizeof(facts->scope), network, "Scope");
	copy_subnets(facts->subnets, sizeof(facts->subnets), network);
	cm_engine_copy_member(facts->parent, sizeof(facts->parent), cm_json_get(network, "Options"),
						  "parent");
	facts->is_internal = cm_json_bool(cm_json_get(network, "Internal"), false);
	if (cm_engine_is_label(labels, CM_LABEL_VERSION, CM_LABELS_VERSION) &&
		cm_engine_is_label(labels, CM_LABEL_KIND, CM_KIND_NETWORK))
		cm_engine_copy_member(facts->epoch, sizeof(facts->epoch), labels, CM_LABEL_EPOCH);
	cm_engine_copy_member(facts->id, sizeof(facts->id), network, "Id");
	return facts->name[0] != '\0' && facts->id[0] != '\0';
}

CmHttpRequest *
cm_engine_begin_network(CmEngine *engine, const char *name, CmEngineDone on_done, void *arg)
{
	return cm_engine_send_short(engine, "GET", cm_engine_make_path(engine, "/networks/", name, ""),
								NULL, on_done, arg);
}

bool
cm_engine_read_network(CmHttpRequest *request, CmNetworkFacts *facts, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);

	if (reply == NULL)
		return false;
	return take_network(reply, facts) ||
		   cm_engine_set_garbled(fault, "the description of a network");
}

CmHttpRequest *
cm_engine_begin_list_networks(CmEngine *engine, CmEngineDone on_done, void *arg)
{
	return cm_engine_send_short(engine, "GET", cm_engine_make_path(engine, "/networks", "", ""),
								NULL, on_done, arg);
}

/* Those that make no sense are left out. */
static bool
take_networks(const CmJson *list, CmNetworkFacts **facts, int *n)
{
	int n_allocated = 16;

	*facts = palloc(sizeof(CmNetworkFacts) * n_allocated);
	for (int i = 0; i < list->count; i++)
	{
		if (*n == n_allocated)
		{
			if (n_allocated >= MAX_LISTED)
				return false;
			n_allocated *= 2;
			*facts = repalloc(*facts, sizeof(CmNetworkFacts) * n_allocated);
		}
		if (take_network(list->items[i], &(*facts)[*n]))
			(*n)++;
	}
	return true;
}

bool
cm_engine_read_networks(CmHttpRequest *request, CmNetworkFacts **facts, int *n, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);

	*n = 0;
	*facts = NULL;
	if (reply == NULL)
		return false;
	if (reply->kind == CM_JSON_ARRAY && take_networks(reply, facts, n))
		return true;
	return cm_engine_set_garbled(fault, "the list of networks");
}

/* ---- create and remove ---- */

static void
append_subnet(StringInfo to, const char *subnet)
{
	if (subnet == NULL)
		return;
	if (to->data[to->len - 1] != '[')
		appendStringInfoChar(to, ',');
	appendStringInfoString(to, "{\"Subnet\":");
	cm_json_append_string(to, subnet);
	appendStringInfoChar(to, '}');
}

static char *
make_network_body(const CmIdentity *identity, const CmNetworkPlan *plan)
{
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"Name\":");
	cm_json_append_string(&body, plan->name);
	/* A name of a network need not be the only one of its kind. */
	appendStringInfoString(&body, ",\"CheckDuplicate\":true,\"Driver\":");
	cm_json_append_string(&body, plan->driver);
	appendStringInfo(
		&body, ",\"Internal\":%s,\"EnableIPv6\":%s,\"IPAM\":{\"Driver\":\"default\",\"Config\":[",
		plan->is_internal ? "true" : "false", plan->subnet6 != NULL ? "true" : "false");
	append_subnet(&body, plan->subnet);
	append_subnet(&body, plan->subnet6);
	appendStringInfoString(&body, "]},\"Options\":{");
	if (plan->parent != NULL)
	{
		appendStringInfoString(&body, "\"parent\":");
		cm_json_append_string(&body, plan->parent);
	}
	appendStringInfoString(&body, "},\"Labels\":{");
	cm_engine_append_ours(&body, identity, CM_KIND_NETWORK);
	appendStringInfoString(&body, "}}");
	return body.data;
}

CmHttpRequest *
cm_engine_begin_create_network(CmEngine *engine, const CmIdentity *identity,
							   const CmNetworkPlan *plan, CmEngineDone on_done, void *arg)
{
	char *body = make_network_body(identity, plan);
	CmHttpRequest *request = cm_engine_send_short(
		engine, "POST", cm_engine_make_path(engine, "/networks/create", "", ""), body, on_done,
		arg);

	pfree(body);
	return request;
}

bool
cm_engine_read_create_network(CmHttpRequest *request, CmFault *fault)
{
	return cm_engine_check_reply(request, fault);
}

CmHttpRequest *
cm_engine_begin_remove_network(CmEngine *engine, const char *id, CmEngineDone on_done, void *arg)
{
	return cm_engine_send_short(engine, "DELETE", cm_engine_make_path(engine, "/networks/", id, ""),
								NULL, on_done, arg);
}

bool
cm_engine_read_remove_network(CmHttpRequest *request, CmFault *fault)
{
	if (cm_engine_check_reply(request, fault))
		return true;
	return fault->kind == CM_FAULT_REFUSED && fault->http_status == 404;
}

/* ---- connect ---- */

static void
append_address(StringInfo to, const char *name, const char *address)
{
	if (address == NULL)
		return;
	if (to->data[to->len - 1] != '{')
		appendStringInfoChar(to, ',');
	appendStringInfo(to, "\"%s\":", name);
	cm_json_append_string(to, address);
}

void
cm_engine_append_endpoint(StringInfo to, const CmNetwork *network)
{
	appendStringInfoString(to, "{\"Aliases\":");
	cm_json_append_words(to, network->aliases.count, (const char *const *) network->aliases.words);
	if (network->ip != NULL || network->ip6 != NULL)
	{
		appendStringInfoString(to, ",\"IPAMConfig\":{");
		append_address(to, "IPv4Address", network->ip);
		append_address(to, "IPv6Address", network->ip6);
		appendStringInfoChar(to, '}');
	}
	appendStringInfoChar(to, '}');
}

CmHttpRequest *
cm_engine_begin_connect(CmEngine *engine, const CmNetwork *network, const char *container_id,
						CmEngineDone on_done, void *arg)
{
	StringInfoData body;
	CmHttpRequest *request;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"Container\":");
	cm_json_append_string(&body, container_id);
	appendStringInfoString(&body, ",\"EndpointConfig\":");
	cm_engine_append_endpoint(&body, network);
	appendStringInfoChar(&body, '}');
	request = cm_engine_send_short(
		engine, "POST", cm_engine_make_path(engine, "/networks/", network->name, "/connect"),
		body.data, on_done, arg);
	pfree(body.data);
	return request;
}

/* Engines that mind being asked again say that it is there already. */
bool
cm_engine_read_connect(CmHttpRequest *request, CmFault *fault)
{
	if (cm_engine_check_reply(request, fault))
		return true;
	return fault->kind == CM_FAULT_REFUSED && strstr(fault->message, " already ") != NULL;
}
