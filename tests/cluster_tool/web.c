/* A small web server for tests of the cluster tool: one static program, so that its image holds nothing else.
 *
 *   web               serve: every GET answers 200 with the host's name; SIGTERM ends it with status 0
 *   web say WORDS     print WORDS (for exec)
 *   web get HOST PORT print the answer's last line of an HTTP GET; HOST may be $NAME of an environment variable
 *   web mark FILE N   write the time to FILE, wait N seconds (for preStop)
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void leave(int number) {
  (void)number;
  if (write(1, "ended by SIGTERM\n", 17) < 0) _exit(2);
  _exit(0);
}

static int serve(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  char host[256] = "", request[4096], answer[512];
  signal(SIGTERM, leave);
  signal(SIGPIPE, SIG_IGN);
  gethostname(host, sizeof host - 1);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return perror("listen"), 1;
  puts("serving on 8080");
  fflush(stdout);
  for (;;) {
    int client = accept(listener, NULL, NULL);
    if (client < 0) continue;
    if (read(client, request, sizeof request) > 0) {
      int length = snprintf(answer, sizeof answer, "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(host), host);
      if (write(client, answer, (size_t)length) < 0) perror("write");
    }
    close(client);
  }
}

static int get(const char *host, const char *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
  char answer[4096] = "";
  int server = socket(AF_INET, SOCK_STREAM, 0), length = 0, more;
  if (host[0] == '$') host = getenv(host + 1);
  if (!host || !inet_aton(host, &address.sin_addr)) return fputs("HOST is no address\n", stderr), 1;
  alarm(5);
  if (connect(server, (struct sockaddr *)&address, sizeof address)) return perror("connect"), 1;
  if (write(server, "GET / HTTP/1.0\r\n\r\n", 18) < 0) return perror("write"), 1;
  while (length < (int)sizeof answer - 1 && (more = (int)read(server, answer + length, sizeof answer - 1 - (size_t)length)) > 0) length += more;
  while (length > 0 && strchr("\r\n", answer[length - 1])) answer[--length] = 0;
  char *last = strrchr(answer, '\n');
  return puts(last ? last + 1 : answer), 0;
}

int main(int count, char **words) {
  if (count > 2 && !strcmp(words[1], "say")) return puts(words[2]), 0;
  if (count > 3 && !strcmp(words[1], "get")) return get(words[2], words[3]);
  if (count > 3 && !strcmp(words[1], "mark")) {
    FILE *file = fopen(words[2], "w");
    if (!file) return perror(words[2]), 1;
    fprintf(file, "%ld\n", (long)time(NULL));
    fclose(file);
    sleep((unsigned)atoi(words[3]));
    return 0;
  }
  return serve();
}
