/* The pause program of a Kubernetes pod: it holds the namespaces that the containers share, collects the processes that they
   leave behind, and ends when it is told to. A blocked signal reaches even process 1, which has no default for any. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    while (sigwaitinfo(&signals, NULL) == SIGCHLD) {
        while (waitpid(-1, NULL, WNOHANG) > 0);
    }
    return 0;
}
