/* An application on librdkafka at a steady pace, for bench/cost: rdkafka_performance waits for the next record by asking for events without
 * pause, which at 2000 records/s keeps a core busy and says nothing of the library. This one sleeps.
 *
 *   cost BOOTSTRAP TOPIC RECORDS RATE BYTES PROPERTY=VALUE...
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rdkafka.h"

static long acknowledged, refused;

static void delivered(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque) {
    (void)producer;
    (void)opaque;
    message->err ? refused++ : acknowledged++;
}

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static rd_kafka_t *open_producer(const char *bootstrap, char **properties) {
    char why[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, why, sizeof(why))) fail(bootstrap, why);
    for (; *properties; properties++) {
        char *value = strchr(*properties, '=');
        if (!value) fail(*properties, "write PROPERTY=VALUE");
        *value++ = 0;
        if (rd_kafka_conf_set(conf, *properties, value, why, sizeof(why))) fail(*properties, why);
    }
    rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    rd_kafka_t *producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
    if (!producer) fail("rd_kafka_new", why);
    return producer;
}

int main(int count, char **words) {
    if (count < 6) fail("usage", "cost BOOTSTRAP TOPIC RECORDS RATE BYTES PROPERTY=VALUE...");
    long records = atol(words[3]), gap_ns = 1000000000 / atol(words[4]), bytes = atol(words[5]);
    rd_kafka_t *producer = open_producer(words[1], words + 6);
    char *value = malloc(bytes);
    for (long at = 0; at < bytes; at++) value[at] = (char)rand();
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (long number = 0; number < records; number++) {
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        due.tv_nsec += gap_ns;
        if (due.tv_nsec >= 1000000000) {
            due.tv_nsec -= 1000000000;
            due.tv_sec++;
        }
        /* Round robin, as the other clients spread them. */
        rd_kafka_resp_err_t error = rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(words[2]), RD_KAFKA_V_PARTITION(number % 4),
                                                      RD_KAFKA_V_VALUE(value, bytes), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        if (error) fail("produce", rd_kafka_err2str(error));
        rd_kafka_poll(producer, 0);
    }
    rd_kafka_flush(producer, 30000);
    printf("%ld acknowledged, %ld refused\n", acknowledged, refused);
    return acknowledged == records ? 0 : 1;
}
