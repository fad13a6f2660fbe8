/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.c - see metrics.h. Tables say which number of the status is which metric; a metric's lines
 * stand together, as the format wants it, so each goes over all engines. Holds no state.
 */
#include "tools/metrics.h"

#include "libclient/weft.h"
#include "tools/json_path.h"

#include <stdbool.h>
#include <string.h>

#define MICRO 1e-6

struct metric {
	const char *name, *type, *help;
	const char *key; /* where: "cache.hits" */
	double scale;	 /* 0: 1 */
};

/* Of weftd itself. */
static const struct metric of_daemon[] = {
	{"weft_uptime_seconds", "gauge", "Since weftd started.", "uptime_ms", 1e-3},
	{"weft_draining", "gauge", "1: nothing new is admitted.", "draining", 0},
	{"weft_sessions", "gauge", "Sessions of clients.", "sessions", 0},
	{"weft_region_bytes", "gauge", "Shared memory of sessions, and of those that are gone.",
	 "region_bytes", 0},
	{"weft_adapter_file_bytes", "gauge", "Copies of adapters that weftd keeps.",
	 "adapter_file_bytes", 0},
	{"weft_sessions_opened_total", "counter", "Sessions that were opened.", "sessions_opened",
	 0},
	{"weft_sessions_refused_total", "counter", "Connections that were refused.", "refused", 0},
	{"weft_connections_dropped_total", "counter",
	 "Connections that were dropped before they were sessions.", "dropped", 0},
	{"weft_session_offences_total", "counter",
	 "Sessions that were ended because they broke the protocol.", "offences", 0},
	{"weft_complaints_total", "counter", "Complaints of clients that saw no progress.",
	 "complaints", 0},
	{"weft_engine_crashes_total", "counter", "Engines that ended when nobody had asked.",
	 "engine_crashes", 0},
};

/* Of each engine, as weftd sees it. */
static const struct metric of_supervision[] = {
	{"weft_engine_starts_total", "counter", "Times that the model's engine was started.",
	 "starts", 0},
	{"weft_engine_busy", "gauge", "1: the engine has work.", "busy", 0},
};

/* Of each engine, as it says itself. */
static const struct metric of_engine[] = {
	{"weft_engine_uptime_seconds", "gauge", "Since this engine started; its counters too.",
	 "uptime_ms", 1e-3},
	{"weft_requests_in_flight", "gauge", "Requests that have not ended.", "in_flight", 0},
	{"weft_sequences_running", "gauge", "Answers that are being computed.", "running", 0},
	{"weft_sequences_waiting", "gauge", "Answers that wait for their turn.", "queued", 0},
	{"weft_requests_refused_total", "counter", "Requests that were refused.", "refused", 0},
	{"weft_requests_recovered_total", "counter",
	 "Requests taken over from an engine that had ended.", "recovered", 0},
	{"weft_requests_abandoned_total", "counter",
	 "Requests given back before their end, or whose client was gone.", "left", 0},
	{"weft_request_faults_total", "counter", "Requests ended as the likely cause of a crash.",
	 "faults", 0},
	{"weft_preemptions_total", "counter",
	 "Times that an answer had to give back its memory and wait.", "preemptions", 0},
	{"weft_passes_total", "counter", "Passes over the model.", "steps", 0},
	{"weft_passes_ahead_total", "counter", "Of these, queued while another computed.",
	 "steps_ahead", 0},
	{"weft_blocks", "gauge", "Blocks of the memory for keys, values and adapters.", "blocks",
	 0},
	{"weft_blocks_available", "gauge", "Of these, to be had at once.", "blocks_free", 0},
	{"weft_blocks_idle", "gauge", "Of these, holding what may still be of use.", "blocks_idle",
	 0},
	{"weft_block_bytes", "gauge", "Bytes of a block.", "block_bytes", 0},
	{"weft_cache_nodes", "gauge", "Whole blocks that can be found.", "cache.nodes", 0},
	{"weft_cache_pinned_nodes", "gauge", "Of these, pinned.", "cache.pinned", 0},
	{"weft_cache_pins", "gauge", "Prefixes that stay.", "pins", 0},
	{"weft_cache_hit_blocks_total", "counter", "Blocks that were asked for and there.",
	 "cache.hits", 0},
	{"weft_cache_hit_rows_total", "counter",
	 "Positions copied out of blocks that agreed in part.", "cache.hit_rows", 0},
	{"weft_cache_missed_blocks_total", "counter", "Blocks that were asked for and not there.",
	 "cache.misses", 0},
	{"weft_cache_inserted_blocks_total", "counter", "Blocks that came into the cache.",
	 "cache.inserted", 0},
	{"weft_cache_evicted_blocks_total", "counter", "Blocks that had to go.", "cache.evicted",
	 0},
	{"weft_adapters_placed_total", "counter", "Adapters that were brought into the pool.",
	 "adapters_placed", 0},
	{"weft_adapters_evicted_total", "counter", "Adapters that had to leave it.",
	 "adapters_evicted", 0},
	{"weft_weight_bytes", "gauge", "The model's weights.", "weight_bytes", 0},
	{"weft_resident_bytes", "gauge", "Memory of the engine's process.", "rss_bytes", 0},
	{"weft_pass_own_seconds_p50", "gauge",
	 "Median of the engine's own time for a pass, over the last thousand.", "own_time.p50_ns",
	 1e-9},
	{"weft_pass_own_seconds_p99", "gauge", "The 99th percentile of the same.",
	 "own_time.p99_ns", 1e-9},
};

/* Of each tenant of an engine. */
static const struct metric of_tenant[] = {
	{"weft_tenant_requests_in_flight", "gauge", "Requests that have not ended.", "in_flight",
	 0},
	{"weft_tenant_queued_tokens", "gauge", "Tokens of prompts that wait.", "queued_tokens", 0},
	{"weft_tenant_blocks", "gauge", "Blocks that its running requests hold.", "blocks", 0},
	{"weft_tenant_cache_nodes", "gauge", "Whole blocks that it can find.", "cache.nodes", 0},
	{"weft_tenant_requests_total", "counter", "Requests that were taken.", "requests", 0},
	{"weft_tenant_requests_refused_total", "counter", "Requests that were refused.", "refused",
	 0},
	{"weft_tenant_prompt_tokens_total", "counter", "Tokens of prompts that have begun.",
	 "tokens_in", 0},
	{"weft_tenant_prompt_tokens_cached_total", "counter", "Of these, found in the cache.",
	 "tokens_cached", 0},
	{"weft_tenant_generated_tokens_total", "counter", "Tokens that were made.", "tokens_out",
	 0},
};

/* Of the base model (adapter="") and of each adapter. */
static const struct metric of_use[] = {
	{"weft_requests_total", "counter", "Requests that were taken.", "requests", 0},
	{"weft_prompt_tokens_total", "counter", "Tokens of prompts that have begun.", "tokens_in",
	 0},
	{"weft_prompt_tokens_cached_total", "counter", "Of these, found in the cache.",
	 "tokens_cached", 0},
	{"weft_generated_tokens_total", "counter", "Tokens that were made.", "tokens_out", 0},
};

static const struct metric of_adapter[] = {
	{"weft_adapter_resident", "gauge", "1: its weights are in the pool.", "resident", 0},
	{"weft_adapter_bytes", "gauge", "Bytes of the pool that its weights take.", "bytes", 0},
	{"weft_adapter_requests_in_flight", "gauge", "Requests that have it in use.", "in_use", 0},
};

static const struct metric histograms[] = {
	{"weft_request_queue_seconds", "", "From a request's arrival to its first pass.",
	 "times.queue", MICRO},
	{"weft_time_to_first_token_seconds", "", "From a request's arrival to its first token.",
	 "times.first_token", MICRO},
	{"weft_request_prefill_seconds", "", "From a request's first pass to its first token.",
	 "times.prefill", MICRO},
	{"weft_inter_token_seconds", "", "From one token of an answer to the next.",
	 "times.between_tokens", MICRO},
	{"weft_request_decode_seconds", "", "From a request's first token to its end.",
	 "times.decode", MICRO},
	{"weft_request_seconds", "", "From a request's arrival to its end.", "times.whole", MICRO},
	{"weft_pass_seconds", "", "One pass over the model.", "times.pass", MICRO},
	{"weft_request_prompt_tokens", "", "Tokens of a request's prompt.", "sizes.prompt_tokens",
	 1},
	{"weft_request_generated_tokens", "", "Tokens of a request's answers.",
	 "sizes.answer_tokens", 1},
	{"weft_pass_rows", "", "Rows of a pass.", "sizes.pass_rows", 1},
};

/* The same numbers under the names of vLLM (its "Production Metrics", checked November 2026). */
static const struct metric vllm[] = {
	{"vllm:num_requests_running", "gauge", "As weft_sequences_running.", "running", 0},
	{"vllm:num_requests_waiting", "gauge", "As weft_sequences_waiting.", "queued", 0},
	{"vllm:num_preemptions_total", "counter", "As weft_preemptions_total.", "preemptions", 0},
	{"vllm:prompt_tokens_total", "counter", "Tokens of prompts that have begun.", "tokens_in",
	 0},
	{"vllm:generation_tokens_total", "counter", "Tokens that were made.", "tokens_out", 0},
	{"vllm:prefix_cache_queries_total", "counter", "Tokens that were looked for in the cache.",
	 "tokens_in", 0},
	{"vllm:prefix_cache_hits_total", "counter", "Of these, found.", "tokens_cached", 0},
};

static const struct metric vllm_histograms[] = {
	{"vllm:time_to_first_token_seconds", "", "As weft_time_to_first_token_seconds.",
	 "times.first_token", MICRO},
	{"vllm:inter_token_latency_seconds", "", "As weft_inter_token_seconds.",
	 "times.between_tokens", MICRO},
	{"vllm:e2e_request_latency_seconds", "", "As weft_request_seconds.", "times.whole", MICRO},
	{"vllm:request_queue_time_seconds", "", "As weft_request_queue_seconds.", "times.queue",
	 MICRO},
	{"vllm:request_prefill_time_seconds", "", "As weft_request_prefill_seconds.",
	 "times.prefill", MICRO},
	{"vllm:request_decode_time_seconds", "", "As weft_request_decode_seconds.", "times.decode",
	 MICRO},
	{"vllm:request_prompt_tokens", "", "As weft_request_prompt_tokens.", "sizes.prompt_tokens",
	 1},
	{"vllm:request_generation_tokens", "", "As weft_request_generated_tokens.",
	 "sizes.answer_tokens", 1},
	{"vllm:iteration_tokens_total", "", "As weft_pass_rows.", "sizes.pass_rows", 1},
};

#define TABLE(t) t, sizeof(t) / sizeof(*(t))

/* --- the text ------------------------------------------------------------------------------------*/

/* Labels are a list of names and values, one after the other, that ends with NULL. */
static void family(FILE *to, const char *name, const char *type, const char *help)
{
	fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void label(FILE *to, const char *name, const char *value)
{
	fprintf(to, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			fputc('\\', to);
		if (*value == '\n')
			fputs("\\n", to);
		else
			fputc(*value, to);
	}
	fputc('"', to);
}

/* le: of a bucket, or NULL. */
static void sample(FILE *to, const char *name, const char *suffix, const char *const *labels,
		   const char *le, double value)
{
	const char *between = "{";

	fprintf(to, "%s%s", name, suffix);
	for (; *labels; labels += 2, between = ",") {
		fputs(between, to);
		label(to, labels[0], labels[1]);
	}
	if (le) {
		fputs(between, to);
		label(to, "le", le);
		between = ",";
	}
	/* Counts are exact as far as a double holds them, which is as far as a reader does. */
	fprintf(to, "%s %.15g\n", *between == ',' ? "}" : "", value);
}

/* --- one value, or one of each -------------------------------------------------------------------*/

static double scaled(const struct metric *m, double value)
{
	return m->scale ? value * m->scale : value;
}

static void line(FILE *to, const struct metric *m, const json_t *o, const char *const *labels)
{
	double value;

	if (json_path_number(o, m->key, &value))
		sample(to, m->name, "", labels, NULL, scaled(m, value));
}

#define EACH_ENGINE(engines, i, e) \
	size_t i;                  \
	json_t *e;                 \
	json_array_foreach((json_t *)engines, i, e)

static void write_engines(FILE *to, const struct metric *m, size_t n, const json_t *engines,
			  const char *part, const char *label_name)
{
	for (; n--; m++) {
		family(to, m->name, m->type, m->help);
		EACH_ENGINE(engines, i, e)
		{
			const char *labels[] = {label_name, json_path_text(e, "model"), NULL};

			line(to, m, part ? json_path(e, part) : e, labels);
		}
	}
}

/* What an engine lists: its tenants, or its adapters. */
static void write_lists(FILE *to, const struct metric *m, size_t n, const json_t *engines,
			const char *list, const char *label_name)
{
	for (; n--; m++) {
		family(to, m->name, m->type, m->help);
		EACH_ENGINE(engines, i, e)
		{
			size_t k;
			json_t *item;

			json_array_foreach(json_path(e, list), k, item)
			{
				const char *labels[] = {"model", json_path_text(e, "model"),
							label_name, json_path_text(item, "name"),
							NULL};

				line(to, m, item, labels);
			}
		}
	}
}

static void write_use(FILE *to, const json_t *engines)
{
	for (const struct metric *m = of_use; m < of_use + sizeof(of_use) / sizeof(*of_use); m++) {
		family(to, m->name, m->type, m->help);
		EACH_ENGINE(engines, i, e)
		{
			const char *labels[] = {"model", json_path_text(e, "model"), "adapter", "",
						NULL};
			size_t k;
			json_t *item;

			line(to, m, json_path(e, "engine.base"), labels);
			json_array_foreach(json_path(e, "engine.adapters"), k, item)
			{
				labels[3] = json_path_text(item, "name");
				line(to, m, item, labels);
			}
		}
	}
}

/*
 * An object of counts, by a label: {"ok": 5, "cancelled": 1}. What has never happened is 0, so that the
 * first time is seen as a rate too.
 */
static void write_counts(FILE *to, const char *name, const char *help, const json_t *engines,
			 const char *part, const char *label_name, const char *(*word)(unsigned i))
{
	family(to, name, "counter", help);
	EACH_ENGINE(engines, i, e)
	{
		const json_t *counts = json_path(e, part);

		for (unsigned k = 0; counts && word(k); k++) {
			const char *labels[] = {"model", json_path_text(e, "model"), label_name,
						word(k), NULL};
			double value = 0;

			json_path_number(counts, word(k), &value);
			sample(to, name, "", labels, NULL, value);
		}
	}
}

/* Each in turn, then NULL. WEFT_LOST is libweft's own, and no engine's. */
static const char *end_word(unsigned i)
{
	const char *word = weft_status_name((enum weft_status)(i < WEFT_LOST ? i : i + 1));

	return strcmp(word, "unknown") ? word : NULL;
}

static const char *finish_word(unsigned i)
{
	static const char *const words[] = {"eos", "stop-token", "stop-sequence", "length"};

	return i < 4 ? words[i] : NULL;
}

/* --- histograms ----------------------------------------------------------------------------------*/

static void write_histogram(FILE *to, const struct metric *m, const json_t *own,
			    const char *const *labels)
{
	const json_t *buckets = json_path(own, m->key), *bounds;
	bool times = !strncmp(m->key, "times.", 6);
	double below = 0, sum = 0;
	size_t i, n = json_array_size(buckets);
	char path[64];

	bounds = json_path(own, times ? "times.bounds_us" : "sizes.bounds");
	if (!n || json_array_size(bounds) + 1 != n)
		return;
	for (i = 0; i < n; i++) {
		char le[32] = "+Inf";

		if (i + 1 < n)
			snprintf(le, sizeof(le), "%.10g",
				 scaled(m, json_number_value(json_array_get(bounds, i))));
		below += json_number_value(json_array_get(buckets, i));
		sample(to, m->name, "_bucket", labels, le, below);
	}
	snprintf(path, sizeof(path), "%s_sum%s", m->key, times ? "_us" : "");
	json_path_number(own, path, &sum);
	sample(to, m->name, "_sum", labels, NULL, scaled(m, sum));
	sample(to, m->name, "_count", labels, NULL, below);
}

static void write_histograms(FILE *to, const struct metric *m, size_t n, const json_t *engines,
			     const char *label_name)
{
	for (; n--; m++) {
		family(to, m->name, "histogram", m->help);
		EACH_ENGINE(engines, i, e)
		{
			const char *labels[] = {label_name, json_path_text(e, "model"), NULL};

			write_histogram(to, m, json_path(e, "engine"), labels);
		}
	}
}

/* --- all of it -----------------------------------------------------------------------------------*/

/* What vLLM means by a share of memory in use, and by the reasons for which requests end. */
static void write_vllm(FILE *to, const json_t *engines)
{
	static const char usage[] = "vllm:kv_cache_usage_perc";
	static const char success[] = "vllm:request_success_total";
	double blocks, available;

	write_engines(to, TABLE(vllm), engines, "engine", "model_name");
	family(to, usage, "gauge", "Share of the blocks that are in use, 0 to 1.");
	EACH_ENGINE(engines, i, e)
	{
		const char *labels[] = {"model_name", json_path_text(e, "model"), NULL};

		if (json_path_number(e, "engine.blocks", &blocks) && blocks > 0 &&
		    json_path_number(e, "engine.blocks_free", &available))
			sample(to, usage, "", labels, NULL, (blocks - available) / blocks);
	}
	family(to, success, "counter", "Answers that came to their end, by the reason.");
	json_array_foreach((json_t *)engines, i, e)
	{
		const char *labels[] = {"model_name", json_path_text(e, "model"), "finished_reason",
					"stop", NULL};
		const json_t *f = json_path(e, "engine.finished");
		double eos = 0, token = 0, sequence = 0, length = 0, cancelled = 0, left = 0;

		if (!f)
			continue;
		json_path_number(f, "eos", &eos);
		json_path_number(f, "stop-token", &token);
		json_path_number(f, "stop-sequence", &sequence);
		json_path_number(f, "length", &length);
		sample(to, success, "", labels, NULL, eos + token + sequence);
		labels[3] = "length";
		sample(to, success, "", labels, NULL, length);
		labels[3] = "abort";
		json_path_number(e, "engine.ended.cancelled", &cancelled);
		json_path_number(e, "engine.left", &left);
		sample(to, success, "", labels, NULL, cancelled + left);
	}
	write_histograms(to, TABLE(vllm_histograms), engines, "model_name");
}

static void write_daemon(FILE *to, const json_t *daemon)
{
	const char *none[] = {NULL};
	const char *version[] = {"version", json_path_text(daemon, "version"), NULL};

	family(to, "weft_info", "gauge", "The version, as a label.");
	sample(to, "weft_info", "", version, NULL, 1);
	for (size_t i = 0; i < sizeof(of_daemon) / sizeof(*of_daemon); i++) {
		family(to, of_daemon[i].name, of_daemon[i].type, of_daemon[i].help);
		line(to, &of_daemon[i], daemon, none);
	}
}

void metrics_write(FILE *to, const json_t *status)
{
	const json_t *engines = json_object_get(status, "engines");

	write_daemon(to, json_object_get(status, "daemon"));
	family(to, "weft_engine_up", "gauge", "1: the model's engine is ready and has answered.");
	EACH_ENGINE(engines, i, e)
	{
		const char *labels[] = {"model", json_path_text(e, "model"), NULL};

		sample(to, "weft_engine_up", "", labels, NULL,
		       json_is_object(json_object_get(e, "engine")));
	}
	write_engines(to, TABLE(of_supervision), engines, NULL, "model");
	write_engines(to, TABLE(of_engine), engines, "engine", "model");
	write_use(to, engines);
	write_counts(to, "weft_requests_ended_total",
		     "Requests by what became of them, refused ones too.", engines, "engine.ended",
		     "status", end_word);
	write_counts(to, "weft_answers_finished_total", "Answers by why they came to their end.",
		     engines, "engine.finished", "reason", finish_word);
	write_histograms(to, TABLE(histograms), engines, "model");
	write_lists(to, TABLE(of_adapter), engines, "engine.adapters", "adapter");
	write_lists(to, TABLE(of_tenant), engines, "engine.tenants", "tenant");
	write_vllm(to, engines);
}
